"""One training step of a config, ours and PyTorch's, side by side on this machine.

    python -m benchmarks.step                                                    # the emoji preset, on a CPU
    benchmarks/gpu.sh WHEELS --out build/step.json                               # Stable Diffusion XL, on a GPU

| side | what it is |
|---|---|
| `pea_jax` | the step of `pea_jax.train`, latents and text states cached |
| `pea_jax-uncached` | the same with autoencoder and both text stacks in the step |
| `pea_jax-remat`, `-int8`, `-float8` | as the first, with `config.remat=block`; with frozen weights in 8 bits |
| `pea_jax-int8-all`, `-float8-all` | the same with rounded activations too |
| `published` | PyTorch as released: eager, two UNet copies, gradients of the weights, and all encoders in the step |
| `eager`, `tuned` | PyTorch with one frozen UNet and a cache; compiled and channels-last too |
| `tuned-whole`, `tuned-checkpointing` | compiled as one; activations computed again |

`NAME@2` runs in two threads. All weights are random and made where they are used; `--networks sdxl` takes the sizes of
Stable Diffusion XL in place of the files that the config names. Each side has a process of its own; those of a group
live together, compile at the same time and then take turns, round by round; the median of the rounds counts, and
compiling and warming up do not. A side that fails is a row that says why. What is measured is in `--out` at once, so
that a run that is cut short loses nothing; after `--budget` seconds no more is begun.
"""

import argparse
import pathlib
import time
from typing import Any

from rich.console import Console

from benchmarks.step_bars import bars
from benchmarks.step_measures import MEASURES, Comparison
from benchmarks.step_rows import Rows, table
from benchmarks.step_work import Bucket, Work, mix_of

CPU_SIDES = ["pea_jax", "eager@1", "eager@2", "tuned@1", "tuned@2"]


def main() -> None:
    args = arguments()
    work = Work.of(args.config, args.field, args.networks, args.batch_size)
    mix = mix_of(work.config)
    bucket = args.bucket or next(iter(mix))
    about: dict[str, Any] = dict(config=args.config, networks=args.networks, batch_size=args.batch_size, bucket=bucket)
    rows = Rows(args.out, about)
    with Comparison(
        work, rows, bucket, mix, rounds=args.rounds, steps=args.steps, deadline=args.budget, cache=args.cache
    ) as comparison:
        for measure in args.measures:
            if time.monotonic() > comparison.deadline:
                print(f"out of time: {measure} is not measured; ask for it alone with --measures {measure}")
                continue
            MEASURES[measure](comparison, args)
    Console(width=140).print(table(rows, [side for group in args.groups for side in group], bucket))
    for line in bars(rows, bucket, mix):
        print(line)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ru.py:emoji")
    parser.add_argument("--field", action="append", default=[], help="NAME=VALUE of the config; several times")
    parser.add_argument("--networks", choices=["sdxl", "tiny"], help="sizes kept here, instead of the config's files")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--bucket", type=_bucket, help="WIDTHxHEIGHT of most measures")
    parser.add_argument("--groups", type=_group, nargs="+", default=[CPU_SIDES], help="sides with commas between")
    parser.add_argument("--mixed", type=_group, default=["tuned", "pea_jax"], help="sides that run the other buckets")
    parser.add_argument("--searched", nargs="+", default=["published"], help="sides whose largest batch is sought")
    parser.add_argument("--measures", nargs="+", choices=sorted(MEASURES), default=["speed"])
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=3, help="batch sizes that are tried in search of the largest")
    parser.add_argument("--capacity", type=float, help="gigabytes that the search may use; by default all")
    parser.add_argument("--budget", type=_seconds, default=float("inf"), help="seconds after which nothing is begun")
    parser.add_argument("--at_once", type=int, default=1, help="buckets of the mix that are prepared at the same time")
    parser.add_argument(
        "--mix_until", type=_seconds, default=float("inf"), help="seconds after which no more are begun"
    )
    parser.add_argument("--cache", default="build/compilation-cache", help="folder of compiled programs")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    return parser.parse_args()


def _bucket(text: str) -> Bucket:
    width, height = text.split("x")
    return int(width), int(height)


def _seconds(text: str) -> float:
    """From now, in `time.monotonic()`."""
    return time.monotonic() + float(text)


def _group(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
