"""Two processes of four devices each against one of eight: the emoji preset, also after a process was killed.

    python -m benchmarks.processes --folder FOLDER

trains `configs/ru.py:emoji` three times, in FOLDER: in one process; in two that talk over the loopback; in two of which
one is killed halfway, after which both are started again. The same command goes on where it was ended. The virtual
devices share the cores of this machine, so that the figures are of equality, not of speed. Bar: no weight of the
adapter differs by more than 1e-5.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

from benchmarks import record

BAR = 1e-5
RUNS = ("one", "two", "killed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--config", default="configs/ru.py:emoji")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--field", action="append", default=[], help="NAME=VALUE of the config; several times")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    args = parser.parse_args()
    fields = [f"num_steps={args.steps}", f"checkpoint.every={max(1, args.steps // 4)}", *args.field]
    fields += [f"data.cache_dir={args.folder / 'cache'}"]
    for name in RUNS:
        command = [sys.executable, "-m", "pea_jax.train", f"--config={args.config}", f"--workdir={args.folder / name}"]
        train(name, [*command, *(f"--config.{field}" for field in fields)], args.folder / name, args.steps)
    weights = {name: load_file(args.folder / name / "adapter" / "adapter.safetensors") for name in RUNS}
    differences = {name: largest_difference(weights[name], weights["one"]) for name in RUNS[1:]}
    losses = {name: json.loads((args.folder / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in RUNS}
    table = Table("", "last loss", "largest difference of a weight")
    for name in RUNS:
        difference = f"{differences[name]:.1e}" if name in differences else ""
        table.add_row(name, f"{losses[name]['loss']:.6f}", difference)
    Console().print(table)
    print(f"{'met' if max(differences.values()) <= BAR else 'MISSED'}: at most {BAR:g}")
    if args.out:
        last = {name: loss["loss"] for name, loss in losses.items()}
        record.write(args.out, dict(steps=args.steps, last_loss=last, differences=differences, bar=BAR))


def train(name: str, command: list[str], workdir: pathlib.Path, steps: int) -> None:
    if name == "one":
        finish([start(command, 8)])
        return
    if name == "killed":
        both = start_two(command)
        while progress(workdir) < steps // 2:
            assert all(process.poll() is None for process in both), "the run ended before it could be killed"
            time.sleep(0.05)
        both[1].send_signal(signal.SIGKILL)
        for process in both:
            process.wait()
    finish(start_two(command))


def start(command: list[str], devices: int) -> subprocess.Popen:
    return subprocess.Popen(command, env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"})


def start_two(command: list[str]) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"--coordinator=localhost:{free.getsockname()[1]}"
    return [start([*command, coordinator, "--num_processes=2", f"--process_id={number}"], 4) for number in range(2)]


def finish(processes: list[subprocess.Popen]) -> None:
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"the training failed: exit codes {codes}")


def progress(workdir: pathlib.Path) -> int:
    """The last logged step."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def largest_difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(found[name] - value).max()) for name, value in expected.items())


if __name__ == "__main__":
    main()
