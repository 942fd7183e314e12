"""Training with latents and text states computed ahead, beside computing them in every step.

    python -m benchmarks.precomputed --config configs/ru.py:emoji

Runs the real commands: `pea_jax.precompute` once, then a few steps of `pea_jax.train` each way, in turns; images/s are
those of the run's own metrics, the best of its logged intervals.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import record

SIDES = ("in every step", "computed ahead")


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder, "cache")
        start = time.perf_counter()
        _run("precompute", args.config, args.field, out=cache)
        ahead = time.perf_counter() - start
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        for number in range(args.rounds):
            for side in SIDES:
                rates[side].append(_images_per_second(args, pathlib.Path(folder, f"{side} {number}"), cache, side))
    best = {side: max(values) for side, values in rates.items()}
    Console().print(_table(best, args.batch_size))
    ratio = best[SIDES[1]] / best[SIDES[0]]
    print(
        f"computing ahead takes {ahead:.0f} s with the start of the process, and makes a step {ratio:.2f} times as fast"
    )
    if args.out:
        result = dict(config=args.config, batch_size=args.batch_size, seconds_ahead=ahead, images_per_second=rates)
        record.write(args.out, {**result, "times_as_fast": ratio})


def _images_per_second(args: argparse.Namespace, workdir: pathlib.Path, cache: pathlib.Path, side: str) -> float:
    fields = [*args.field, f"batch_size={args.batch_size}", f"num_steps={args.steps}", "log_every=5"]
    fields += [f"{name}={args.steps}" for name in ("sample.every", "checkpoint.every")]
    fields += [f"data.cached={side == SIDES[1]}", f"data.cache_dir={cache}"]
    _run("train", args.config, fields, workdir=workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return max(entry["images_per_second"] for entry in map(json.loads, lines) if "images_per_second" in entry)


def _run(command: str, config: str, fields: list[str], **flags: Any) -> None:
    given = [f"--{name}={value}" for name, value in flags.items()] + [f"--config.{field}" for field in fields]
    subprocess.run([sys.executable, "-m", f"pea_jax.{command}", "--config", config, *given], check=True)


def _table(best: dict[str, float], batch_size: int) -> Table:
    table = Table("latents and text states", "ms a step", "images/s")
    for side, rate in best.items():
        table.add_row(side, f"{1000 * batch_size / rate:.0f}", f"{rate:.0f}")
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ru.py:emoji")
    parser.add_argument("--field", action="append", default=[], help="NAME=VALUE of the config; several times")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
