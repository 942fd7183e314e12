"""Memory and time that it takes to load Stable Diffusion XL's UNet, ours and diffusers' `from_pretrained`.

    python -m benchmarks.loading --folder FOLDER

writes a UNet of random weights in half precision into FOLDER if there is none (5.1 GB; `--scale tiny`: a toy) and loads
it, each side in processes of its own, now the one first and now the other; the best round of each counts. `--dtype` is
that of the loaded model, float32 by default on both sides; with float16 PyTorch need not convert anything and only maps
the file. A side is done when it has read one number of every page of every parameter, since a tensor that is only
mapped is not loaded yet. Memory is the growth of the process's resident set, from after the imports to its peak;
seconds are of the clock and of the processor, which differ where other work runs beside. Python's collector leaves out
what was imported, on both sides. Ours compiles a program for each shape that many parameters have: with
JAX_COMPILATION_CACHE_DIR, which the commands of pea_jax set, that is done in the first round alone.
"""

import argparse
import gc
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import memory, record
from benchmarks.random_unet import CONFIGS, write_unet

MEMORY_BAR, TIME_BAR = 1.2, 1.0
Load = Callable[[], int]


def main() -> None:
    args = _arguments()
    if args.side:
        print(json.dumps(_measured(SIDES[args.side](args.folder, args.dtype))))
        return
    write_unet(args.folder / "unet", CONFIGS[args.scale])
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side in list(SIDES)[:: -1 if number % 2 else 1]:
            rounds[side].append(_in_a_process(args, side))
    best = {side: {key: min(r[key] for r in results) for key in results[0]} for side, results in rounds.items()}
    Console().print(_table(best))
    growth = best["pea_jax"]["growth"] / best["pea_jax"]["parameters"]
    speed = best["diffusers"]["seconds"] / best["pea_jax"]["seconds"]
    print(f"pea_jax takes {growth:.2f} times the bytes of its parameters (bar {MEMORY_BAR})")
    print(f"pea_jax is {speed:.2f} times as fast as diffusers (bar {TIME_BAR})")
    if args.out:
        result = dict(scale=args.scale, dtype=args.dtype, rounds=rounds, memory=growth, times_as_fast=speed)
        record.write(args.out, result)


def _pea_jax(folder: pathlib.Path, dtype: str) -> Load:
    import jax
    from flax import nnx

    from pea_jax.weights import load_unet

    def load() -> int:
        parameters = jax.tree.leaves(nnx.state(load_unet(folder, dtype=dtype)))
        return sum(memory.touched(np.asarray(parameter)) for parameter in parameters)

    return load


def _diffusers(folder: pathlib.Path, dtype: str) -> Load:
    import torch
    from diffusers import UNet2DConditionModel

    def load() -> int:
        model = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=getattr(torch, dtype))
        return sum(memory.touched(parameter.detach().view(torch.uint8).numpy()) for parameter in model.parameters())

    return load


SIDES: dict[str, Callable[[pathlib.Path, str], Load]] = {"pea_jax": _pea_jax, "diffusers": _diffusers}


def _measured(load: Load) -> dict[str, float]:
    gc.freeze()
    start = time.process_time()
    parameters, figures = memory.measured(load)
    return dict(parameters=parameters, processor_seconds=time.process_time() - start, **figures)


def _in_a_process(args: argparse.Namespace, side: str) -> dict[str, float]:
    options = ["--folder", str(args.folder), "--dtype", args.dtype, "--side", side]
    command = [sys.executable, "-m", "benchmarks.loading", *options]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def _table(best: dict[str, dict[str, float]]) -> Table:
    table = Table("", "parameters", "memory", "x parameters", "seconds", "processor, s")
    for side, result in best.items():
        sizes = [f"{result[key] / 1e6:,.0f} MB" for key in ("parameters", "growth")]
        seconds = [f"{result[key]:.2f}" for key in ("seconds", "processor_seconds")]
        table.add_row(side, *sizes, f"{result['growth'] / result['parameters']:.2f}", *seconds)
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--scale", choices=sorted(CONFIGS), default="full")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
