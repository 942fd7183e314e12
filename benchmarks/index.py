"""The index of a million members of tar shards: how fast it is built, what memory it takes, how soon training starts.

    python -m benchmarks.index --folder FOLDER

writes synthetic shards into FOLDER if there are none (9 GB: pictures of 16 kilobytes; with smaller ones headers come
denser, and parsing them, about 3 microseconds each, takes longer than reading), then, in processes of their own and
with the shards dropped from the system's memory: reads all their bytes in order, builds their index, and starts a
loader on the finished index up to its first batch. The best round of each counts. "Disk speed" is that of reading all
bytes with as many threads; the time to the first batch is that of the whole process, imports among it.
"""

import argparse
import concurrent.futures
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import memory, record

MEMORY_BAR, START_BAR = 64, 2.0
SPEED_BAR = 0.8  # of the bytes a second that reading alone gets; less would be more than noise
THREADS = 16


def main() -> None:
    args = _arguments()
    if args.side:
        print(json.dumps(SIDES[args.side](_shards(args.folder))))
        return
    write_shards(args.folder, args.members, args.shards, args.kilobytes)
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            rounds[side].append(_in_a_process(args.folder, side))
    best = {side: min(results, key=lambda result: result["seconds"]) for side, results in rounds.items()}
    size, samples = sum(os.path.getsize(shard) for shard in _shards(args.folder)), args.members // 2
    Console().print(_table(best, size))
    speed = best["read"]["seconds"] / best["build"]["seconds"]
    taken = best["start"]["growth"] / samples
    print(f"built at {speed:.2f} of the speed of reading all bytes (bar {SPEED_BAR})")
    print(f"{taken:.1f} bytes of memory a sample (bar {MEMORY_BAR})")
    print(f"first batch {best['start']['seconds']:.2f} s after the process started (bar {START_BAR})")
    if args.out:
        result = dict(
            members=args.members,
            shards=args.shards,
            kilobytes=args.kilobytes,
            bytes=size,
            threads=THREADS,
            rounds=rounds,
        )
        record.write(args.out, result | dict(speed=speed, bytes_a_sample=taken, start=best["start"]["seconds"]))


def write_shards(folder: pathlib.Path, members: int, shards: int, kilobytes: int) -> None:
    """Samples of two members each: a JPEG of 32x32 pixels, filled up with bytes that decoders ignore, and a record."""
    if list(folder.glob("*.tar")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = [_jpeg(rng).ljust(1024 * kilobytes, b"\0") for _ in range(64)]
    for shard in range(shards):
        with open(folder / f"{shard:05d}.tar", "wb") as file:
            for number in range(shard * members // 2 // shards, (shard + 1) * members // 2 // shards):
                text = json.dumps({"caption_en": f"picture {number}", "caption_ru": f"картинка {number}"})
                file.write(tar_member(f"{number:09d}.jpg", images[number % len(images)]))
                file.write(tar_member(f"{number:09d}.json", text.encode()))
            file.write(bytes(2 * tarfile.BLOCKSIZE))


def _jpeg(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar_member(name: str, data: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _read(shards: list[str]) -> dict[str, float]:
    """All bytes of all shards."""

    def read(shard: str) -> None:
        buffer = bytearray(1 << 22)
        with open(shard, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    return _timed_cold(shards, lambda: list(concurrent.futures.ThreadPoolExecutor(THREADS).map(read, shards)))


def _build(shards: list[str]) -> dict[str, float]:
    from pea_jax.data import WebDatasetSource

    for shard in shards:
        pathlib.Path(f"{shard}.pea_index").unlink(missing_ok=True)
    return _timed_cold(shards, lambda: WebDatasetSource(shards))


def _tarfile(shards: list[str]) -> dict[str, float]:
    """The first shard by Python's own module, for comparison; seconds as if for all."""

    def read() -> None:
        with tarfile.open(shards[0]) as tar:
            for _ in tar:
                tar.members = []  # type: ignore[attr-defined]

    result = _timed_cold(shards[:1], read)
    return {name: value * len(shards) for name, value in result.items()}


def _start(shards: list[str]) -> dict[str, float]:
    """The first batch on a finished index, and the memory that source and loader take."""
    began = _process_start()
    from pea_jax.data import CaptionRules, PixelExample, make_loader, open_source

    imported = time.time()
    source, figures = memory.measured(lambda: open_source(shards))
    rules = CaptionRules("ru", translated=("caption_ru",), english="caption_en")
    next(iter(make_loader(source, PixelExample(rules, ((32, 32),)), batch_size=32, seed=0)))
    seconds = time.time() - began
    return dict(seconds=seconds, imports=imported - began, opening=figures["seconds"], growth=figures["growth"])


SIDES: dict[str, Callable[[list[str]], dict[str, float]]] = {
    "read": _read,
    "build": _build,
    "tarfile": _tarfile,
    "start": _start,
}


def _timed_cold(shards: list[str], work: Callable[[], object]) -> dict[str, float]:
    for shard in shards:
        with open(shard, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return dict(seconds=time.perf_counter() - clock, processor_seconds=time.process_time() - processor)


def _process_start() -> float:
    """When this process was started, as seconds since 1970."""
    ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def _shards(folder: pathlib.Path) -> list[str]:
    return sorted(map(str, folder.glob("*.tar")))


def _in_a_process(folder: pathlib.Path, side: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.index", "--folder", str(folder), "--side", side]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def _table(best: dict[str, dict[str, float]], size: int) -> Table:
    table = Table("", "seconds", "processor, s", "MB a second")
    names = {"read": "read all bytes", "build": "build the index", "tarfile": "headers by tarfile"}
    for side, name in names.items():
        seconds, processor = best[side]["seconds"], best[side]["processor_seconds"]
        table.add_row(name, f"{seconds:.2f}", f"{processor:.2f}", f"{size / seconds / 1e6:,.0f}")
    start = best["start"]
    table.add_row("start: imports", f"{start['imports']:.2f}", "", "")
    table.add_row("start: opening the source", f"{start['opening']:.2f}", "", "")
    table.add_row("start: all, to the first batch", f"{start['seconds']:.2f}", "", "")
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--kilobytes", type=int, default=16, help="size of a picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
