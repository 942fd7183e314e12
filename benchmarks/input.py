"""Pictures a second from tar shards to batches, ours and webdataset's in PyTorch's DataLoader.

    python -m benchmarks.input --folder FOLDER

writes shards of JPEG pictures of 1024x1024 pixels into FOLDER if there are none (100 MB). Both sides decode, resize
(bilinear, antialiased), cut out a bucket of 640x640 at a random place and give batches of float32 in [-1, 1], with as
many workers: threads of ours, processes of the DataLoader. Theirs transforms with Pillow as torchvision does for Pillow
images (`Resize`, `RandomCrop`, `ToTensor`, `Normalize`). The sides run in turns, each in a process of its own, and the
best round of each counts; the pictures lie in the system's memory, so that what is measured is the processor's work.
Needs webdataset and, for the table of decoders, opencv-python-headless and imagecodecs.
"""

import argparse
import importlib
import io
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.index import tar_member

BAR = 1.0
SIZE, BUCKET, BATCH = (1024, 1024), (640, 640), 16
SHARDS, PICTURES = 4, 128  # in each


def main() -> None:
    args = _arguments()
    if args.side:
        print(json.dumps(_rate(SIDES[args.side](_shards(args.folder), args.workers), args.batches)))
        return
    write_shards(args.folder)
    decoders = _decoders(args.folder)
    rounds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            rounds[side].append(_in_a_process(args, side))
    best = {side: max(rates) for side, rates in rounds.items()}
    Console().print(_table("decoder", "ms a picture", decoders, ".2f"))
    Console().print(_table(f"{args.workers} workers", "pictures a second", best, ".1f"))
    ratio = best["pea_jax"] / best["webdataset"]
    print(f"pea_jax is {ratio:.2f} times as fast as webdataset (bar {BAR})")
    if args.out:
        record.write(args.out, dict(workers=args.workers, decoders=decoders, rounds=rounds, times_as_fast=ratio))


def write_shards(folder: pathlib.Path) -> None:
    if list(folder.glob("*.tar")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    text = json.dumps({"caption_en": "a picture", "caption_ru": "картинка"}).encode()
    pictures = [_jpeg(rng) for _ in range(8)]
    for shard in range(SHARDS):
        with open(folder / f"{shard:05d}.tar", "wb") as file:
            for number in range(shard * PICTURES, (shard + 1) * PICTURES):
                file.write(tar_member(f"{number:06d}.jpg", pictures[number % len(pictures)]))
                file.write(tar_member(f"{number:06d}.json", text))
            file.write(bytes(1024))


def _jpeg(rng: np.random.Generator) -> bytes:
    """Noise at several scales, the coarse ones stronger, as photographs have it; about 200 kilobytes."""
    pixels = np.full((*SIZE, 3), 128, np.float32)
    for scale in (4, 16, 64, 256, 1024):
        noise = rng.normal(size=(scale, scale, 3)) * 40 / scale**0.35 + 128
        coarse = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        pixels += np.asarray(coarse, np.float32) - 128
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _pea_jax(shards: list[str], workers: int) -> Iterator[Any]:
    from pea_jax.data import CaptionRules, PixelExample, make_loader, open_source

    example = PixelExample(CaptionRules("ru", translated=("caption_ru",)), (BUCKET,))
    loader = make_loader(open_source(shards), example, batch_size=BATCH, seed=0, num_threads=workers)
    return (batch["pixels"] for batch in iter(loader))


def _webdataset(shards: list[str], workers: int) -> Iterator[Any]:
    import torch
    import webdataset

    torch.set_num_threads(1)
    data = webdataset.WebDataset(shards, resampled=True, shardshuffle=False).shuffle(100).to_tuple("jpg", "json")
    batches = data.map(_transform).batched(BATCH, partial=False)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=workers)
    return (pixels for pixels, _ in loader)


def _transform(sample: tuple[bytes, bytes]) -> tuple[Any, dict[str, str]]:
    import torch

    image = Image.open(io.BytesIO(sample[0])).convert("RGB").resize(BUCKET, Image.Resampling.BILINEAR)
    top, left = (int(torch.randint(image.size[axis] - BUCKET[axis] + 1, (1,))) for axis in (1, 0))
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + BUCKET[0], top + BUCKET[1]))))
    pixels = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
    return pixels.sub_(0.5).div_(0.5), json.loads(sample[1])


SIDES: dict[str, Callable[[list[str], int], Iterator[Any]]] = {"pea_jax": _pea_jax, "webdataset": _webdataset}


def _rate(batches: Iterator[Any], count: int) -> float:
    for _ in range(4):  # workers start
        next(batches)
    clock = time.perf_counter()
    for _ in range(count):
        assert len(next(batches)) == BATCH
    return count * BATCH / (time.perf_counter() - clock)


def _decoders(folder: pathlib.Path) -> dict[str, float]:
    """Milliseconds of the processor for one picture, to a whole RGB array; those that are installed."""
    with open(_shards(folder)[0], "rb") as file:
        header = file.read(512)
        data = file.read(int(header[124:135], 8))
    ways: dict[str, Callable[[Any], Any]] = {
        "PIL.Image": lambda library: np.asarray(library.open(io.BytesIO(data)).convert("RGB")),
        "simplejpeg": lambda library: library.decode_jpeg(data),
        "cv2": lambda library: library.cvtColor(library.imdecode(np.frombuffer(data, np.uint8), 1), 4),
        "imagecodecs": lambda library: library.jpeg8_decode(data),
    }
    results = {}
    for name, decode in ways.items():
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        results[name] = min(_milliseconds(decode, library) for _ in range(15))
    return results


def _milliseconds(decode: Callable[[Any], Any], library: Any) -> float:
    start = time.process_time()
    decode(library)
    return 1e3 * (time.process_time() - start)


def _in_a_process(args: argparse.Namespace, side: str) -> float:
    options = ["--folder", str(args.folder), "--workers", str(args.workers), "--batches", str(args.batches)]
    command = [sys.executable, "-m", "benchmarks.input", *options, "--side", side]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def _shards(folder: pathlib.Path) -> list[str]:
    return sorted(map(str, folder.glob("*.tar")))


def _table(first: str, second: str, rows: dict[str, float], form: str) -> Table:
    table = Table(first, second)
    for name, value in rows.items():
        table.add_row(name, format(value, form))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=16, help="measured in a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
