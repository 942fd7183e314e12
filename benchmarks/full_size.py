"""Stable Diffusion XL's UNet at full size beside PyTorch's: one step on 64x64 latents (a picture of 512x512).

    python -m benchmarks.full_size --folder FOLDER

writes 2.6 billion random weights in half precision into FOLDER (5.1 GB), loads them with each side in a process of its
own, in float32 and in bfloat16, denoises once, and compares the prediction and the features of every block; then in
float32 the gradient with regard to the prompt embeddings. What a process found stays in FOLDER, so that a run which was
cut short goes on where it stopped; `--tasks bfloat16` leaves out the gradient, which takes the most memory, and
`--scale tiny` runs a toy.

Bars: in float32 no number differs by more than 1e-3 of the standard deviation of its array; in bfloat16 ours is no
further from PyTorch's float32 (root mean square) than 1.5 times PyTorch's own bfloat16; loading takes at most 1.2
times the bytes of the parameters.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.full_size_sides import SIDES
from benchmarks.random_unet import CONFIGS, write_unet

FLOAT32_BAR, BFLOAT16_BAR, MEMORY_BAR = 1e-3, 1.5, 1.2
TASKS = ("float32", "bfloat16", "gradient")


def main() -> None:
    args = _arguments()
    if args.run:
        _run(args.folder, *args.run)
        return
    write_unet(args.folder / "unet", CONFIGS[args.scale])
    runs = [(side, task) for task in TASKS if task in ("float32", *args.tasks) for side in SIDES]
    for run in runs:
        if not _stem(args.folder, *run).with_suffix(".json").exists():
            command = [sys.executable, "-m", "benchmarks.full_size", "--folder", str(args.folder), "--run", *run]
            subprocess.run(command, check=True)
    figures = {" ".join(run): json.loads(_stem(args.folder, *run).with_suffix(".json").read_text()) for run in runs}
    arrays = {run: dict(np.load(_stem(args.folder, *run).with_suffix(".npz"))) for run in runs}
    errors = _errors(arrays)
    Console().print(_table_of_errors(errors))
    Console().print(_table_of_figures(figures))
    bars = _bars(errors, figures)
    for name, (value, most) in bars.items():
        print(f"{'met' if value <= most else 'MISSED'}: {name} {value:.2g} (at most {most:g})")
    if args.out:
        record.write(args.out, dict(scale=args.scale, figures=figures, errors=errors, bars=bars))


def _run(folder: pathlib.Path, side: str, task: str) -> None:
    found, stem = SIDES[side](folder, task), _stem(folder, side, task)
    np.savez(stem.with_suffix(".npz"), **found.arrays)
    stem.with_suffix(".json").write_text(json.dumps(found.figures))


def _stem(folder: pathlib.Path, side: str, task: str) -> pathlib.Path:
    return folder / f"{side}-{task}"


def _errors(arrays: dict[tuple[str, str], dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """For each array, in units of the standard deviation of PyTorch's float32, which all are compared with: the largest
    difference of our float32, and the root mean square of the differences of either side's bfloat16."""
    errors: dict[str, dict[str, float]] = {}
    for (side, task), results in arrays.items():
        for name, result in results.items():
            truth = arrays["PyTorch", "gradient" if task == "gradient" else "float32"][name]
            difference = (result - truth) / truth.std()
            if task == "bfloat16":
                errors[name][f"{side} bfloat16"] = float(np.sqrt(np.square(difference).mean()))
            elif side == "pea_jax":
                errors[name] = dict(float32=float(np.abs(difference).max()))
    return errors


def _bars(errors: dict[str, dict[str, float]], figures: dict[str, Any]) -> dict[str, tuple[float, float]]:
    largest = max(error["float32"] for error in errors.values())
    halves = [e["pea_jax bfloat16"] / e["PyTorch bfloat16"] for e in errors.values() if "pea_jax bfloat16" in e]
    ours = [figure for run, figure in figures.items() if run.startswith("pea_jax")]
    loading = max(figure["loading_memory"] / figure["parameters"] for figure in ours)
    bars = {"float32, largest difference": (largest, FLOAT32_BAR)}
    if halves:
        bars["bfloat16, distance over PyTorch's own"] = (max(halves), BFLOAT16_BAR)
    return bars | {"memory of loading over the parameters'": (loading, MEMORY_BAR)}


def _table_of_errors(errors: dict[str, dict[str, float]]) -> Table:
    columns = ("float32", "PyTorch bfloat16", "pea_jax bfloat16")
    table = Table("", "float32, largest", "PyTorch bfloat16, rms", "pea_jax bfloat16, rms")
    for name, error in errors.items():
        table.add_row(name, *(f"{error[column]:.1e}" if column in error else "" for column in columns))
    return table


def _table_of_figures(figures: dict[str, dict[str, float]]) -> Table:
    table = Table("", "parameters", "memory of loading", "seconds of it", "compilation, s", "step, s", "peak memory")
    for run, figure in figures.items():
        gigabytes = {key: f"{figure[key] / 1e9:.2f} GB" for key in ("parameters", "loading_memory", "peak_memory")}
        seconds = [f"{figure[f'{key}_seconds']:.1f}" for key in ("loading", "compilation", "step")]
        table.add_row(run, gigabytes["parameters"], gigabytes["loading_memory"], *seconds, gigabytes["peak_memory"])
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--scale", choices=sorted(CONFIGS), default="full")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="beside float32")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
