"""The real command with its processes, at toy size."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = ["dtype=float32", "text_encoder.context_length=6", "adapter.hidden_dim=10"]
FIELDS += ["data.buckets=((16, 16), (24, 16), (16, 24))", "data.bucket_weights=(0.5, 0.3, 0.2)"]


def run(tmp_path: pathlib.Path, *flags: str) -> tuple[list[dict[str, Any]], str]:
    """The rows that the command has written, none of which may have failed, and what it printed."""
    command = [sys.executable, "-m", "benchmarks.step", "--config", "configs/ru.py", "--networks", "tiny", *flags]
    command += ["--batch_size", "2", "--steps", "1", "--rounds", "2", *(f"--field={field}" for field in FIELDS)]
    command += ["--trials", "1", "--capacity", "3"]
    command += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "rows.json")]
    environment = os.environ | dict(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1", XLA_FLAGS="")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert not [row for row in rows if "failed" in row]
    return rows, done.stdout


@pytest.mark.timeout(900)  # 20 seconds of a core, which may be shared
def test_pytorch_is_measured_in_processes_of_its_own(tmp_path: pathlib.Path):
    rows, _ = run(tmp_path, "--groups", "eager", "--searched", "eager", "--measures", "speed", "largest")
    assert [row["measure"] for row in rows] == ["matmul", "step", "largest batch"]
    assert len(rows[1]["rounds"]) == 2 and rows[1]["seconds"] > 0 and rows[1]["peak"] > 1e8 and rows[2]["rows"] >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it compiles our step eight times
def test_every_measure_runs_in_processes_of_its_own(tmp_path: pathlib.Path):
    sides = [
        "--groups",
        "eager,pea_jax",
        "--mixed",
        "eager,pea_jax",
        "--at_once",
        "2",
        "--searched",
        "eager",
        "pea_jax",
    ]
    rows, shown = run(tmp_path, *sides, "--measures", "speed", "mix", "start", "largest")
    steps = {(row["side"], tuple(row["bucket"])): row for row in rows if row["measure"] == "step"}
    assert len(steps) == 6 and {len(row["rounds"]) for row in steps.values()} == {2}
    assert all(row["seconds"] > 0 and row["mfu"] > 0 and row["peak"] > 1e8 for row in steps.values())
    planned = next(row["bytes"] for row in rows if row["measure"] == "plan")
    assert 0 < planned["2"] < planned["4"]
    largest = {row["side"]: row["rows"] for row in rows if row["measure"] == "largest batch"}
    assert largest["eager"] >= 2 and largest["pea_jax"] >= 4
    assert [row["cache"] for row in rows if row["measure"] == "start"] == ["warm"]
    assert "against PyTorch at its best" in shown
