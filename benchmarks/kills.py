"""A run that is killed many times, and the same run left alone: the same adapter, no sample repeated or lost.

    python -m benchmarks.kills --folder FOLDER --out benchmarks/results/kills.json

One run of the emoji preset, made small: a tiny base model of the tests, 48 emoji, batches of 4, a checkpoint every
second step. Its process is killed with SIGKILL again and again (`--kills`), each time at a moment drawn from one of
three: the whole start of the process, the steps, the writing of a checkpoint. Then it may end. What is compared, bit by
bit, is the adapter; and of every step of every life of the process, which samples it took. Processes are forked from
one that has imported everything, or the imports would take most of the time.
"""

import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import record
from tests import commands

FORKS = multiprocessing.get_context("forkserver")
MOMENTS = {"start": 0.2, "steps": 0.4, "checkpoint": 0.4}  # shares of the kills
ADAPTER = "adapter/adapter.safetensors"


def main() -> None:
    args = _arguments()
    result = measure(args.folder, kills=args.kills, steps=args.steps, seed=args.seed)
    Console().print(_table(result))
    if args.out:
        record.write(args.out, result)
    if not (result["adapter_identical"] and result["steps_with_other_samples"] == result["repeated_or_lost"] == 0):
        sys.exit("error: the killed run is not the run that was left alone")


def measure(folder: pathlib.Path, *, kills: int, steps: int, seed: int = 0) -> dict[str, Any]:
    """The run left alone, then the killed one; `folder` is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    fields = _world(folder, steps)
    alone, killed = folder / "alone", folder / "killed"
    _start(fields, alone, folder / "first").join()  # compiles, and computes the cache
    shutil.rmtree(alone)
    process, begin = _start(fields, alone, folder / "alone.rows"), time.monotonic()
    while not _rows(folder / "alone.rows"):
        _check(process.exitcode in (None, 0), alone)
        time.sleep(0.01)
    first_step = time.monotonic() - begin
    process.join()
    _check(process.exitcode == 0, alone)
    step = (time.monotonic() - begin - first_step) / steps
    rng, moments = np.random.default_rng(seed), collections.Counter[str]()
    for kind in track(rng.choice(list(MOMENTS), kills, p=list(MOMENTS.values())), f"{kills} kills"):
        moments[_one_kill(fields, killed, folder / "killed.rows", str(kind), rng, first_step, step)] += 1
    leftovers = [path.name for path in (killed / "checkpoints").iterdir() if not path.name.isdigit()]
    last = _start(fields, killed, folder / "killed.rows")
    last.join()
    _check(last.exitcode == 0, killed)
    return dict(
        kills=sum(moments.values()),
        moments=dict(moments),
        steps=steps,
        adapter_identical=(alone / ADAPTER).read_bytes() == (killed / ADAPTER).read_bytes(),
        metrics_identical=_losses(alone) == _losses(killed),
        torn_checkpoints_before_the_end=len(leftovers),
        torn_checkpoints_after=len([p for p in (killed / "checkpoints").iterdir() if not p.name.isdigit()]),
        **compare(_rows(folder / "alone.rows"), _rows(folder / "killed.rows"), steps),
    )


def compare(alone: list[tuple[int, tuple]], killed: list[tuple[int, tuple]], steps: int) -> dict[str, int]:
    """Which samples each step took, in every life of the process."""
    expected = dict(alone)
    last = dict(killed)  # of the steps done twice, the one that the final adapter has in it
    wanted, used = (collections.Counter(key for rows in taken.values() for key in rows) for taken in (expected, last))
    return dict(
        steps_done=len(killed),
        steps_done_again=len(killed) - len(last),
        steps_with_other_samples=sum(expected.get(step) != rows for step, rows in killed),
        repeated_or_lost=sum(((wanted - used) + (used - wanted)).values()) + abs(steps - len(last)),
    )


def _one_kill(fields, workdir, rows, kind: str, rng: np.random.Generator, first_step: float, step: float) -> str:
    """Start the run, kill it at a moment of this kind, and say what it was at then."""
    before, torn = len(_rows(rows)), _torn(workdir)
    process, begin = _start(fields, workdir, rows), time.monotonic()
    wait = rng.uniform(0, first_step if kind == "start" else 4 * step)
    while kind != "start" and len(_rows(rows)) == before and process.exitcode is None:
        time.sleep(0.002)
    while kind == "checkpoint" and not _torn(workdir) - torn and process.exitcode is None:
        time.sleep(0.0005)
    wait = rng.uniform(0, 0.02) if kind == "checkpoint" else wait - (time.monotonic() - begin if kind == "start" else 0)
    time.sleep(max(0.0, wait))
    process.kill()
    process.join()
    if process.exitcode == 0:
        return "had ended"
    if _torn(workdir) - torn:
        return "in a checkpoint write"
    return "in the steps" if len(_rows(rows)) > before else "while starting"


def _torn(workdir: pathlib.Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").glob("*") if not path.name.isdigit()}


def _start(fields: dict[str, object], workdir: pathlib.Path, rows: pathlib.Path) -> Any:
    FORKS.set_forkserver_preload(["benchmarks.kills", "pea_jax.train", "tensorboardX", "orbax.checkpoint.v1"])
    arguments = commands.command("train", fields, config=commands.CONFIG, workdir=workdir)[3:]
    process = FORKS.Process(target=_train, args=(arguments, rows, workdir.with_suffix(".log")))
    process.start()
    return process


def _train(arguments: list[str], rows: pathlib.Path, log: pathlib.Path) -> None:
    """One life: training as a user starts it, with a note of the samples of every step."""
    for descriptor in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(commands.ROOT)
    import jax

    jax.config.update("jax_compilation_cache_dir", str(rows.parent / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    from pea_jax import command, train
    from pea_jax.data.batches import Batches

    file, take = os.open(rows, os.O_WRONLY | os.O_CREAT | os.O_APPEND), Batches.__next__

    def noted(batches: Batches) -> dict[str, Any]:
        batch = take(batches)
        os.write(file, json.dumps([batches.get_state()["next_index"], batches.rows.tolist()]).encode() + b"\n")
        return batch

    Batches.__next__ = noted  # type: ignore[method-assign]
    sys.argv = ["pea_jax.train", *arguments]
    command.run(train.main)


def _rows(path: pathlib.Path) -> list[tuple[int, tuple]]:
    """[(step, its samples)] in the order in which they were taken."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(step, tuple(rows)) for step, rows in map(json.loads, lines)]


def _losses(workdir: pathlib.Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _check(fine: bool, workdir: pathlib.Path) -> None:
    if not fine:
        sys.exit(f"error: the run failed:\n{workdir.with_suffix('.log').read_text()[-2000:]}")


def _world(folder: pathlib.Path, steps: int) -> dict[str, object]:
    folder.mkdir(parents=True)
    maker = FORKS.Process(target=_write_world, args=(folder,))  # PyTorch stays out of what is forked
    maker.start()
    maker.join()
    data = {
        "data.train": folder / "train.tar",
        "data.validation": folder / "val.tar",
        "data.cache_dir": folder / "cache",
    }
    small = {"num_steps": steps, "checkpoint.every": 2, "sample.every": steps, "base_model": folder / "base"}
    return {**commands.TINY, **data, **small}


def _write_world(folder: pathlib.Path) -> None:
    commands.write_world(folder)
    commands.write_shard(folder / "train.tar", "emoji-train-00000.tar", 48)


def _table(result: dict[str, Any]) -> Table:
    table = Table("measure", "")
    for name, value in result.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="for the runs; emptied first")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    return args


if __name__ == "__main__":
    main()
