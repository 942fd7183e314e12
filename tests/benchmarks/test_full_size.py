"""The comparison at full size runs, on a toy."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

from benchmarks.random_unet import FILE, TINY, write_unet

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_written_file_is_whole_and_of_the_expected_spread(tmp_path):
    write_unet(tmp_path, TINY)
    with safe_open(tmp_path / FILE, framework="numpy") as file:
        kernel, scale = (file.get_tensor(f"mid_block.resnets.0.{name}.weight") for name in ("conv1", "norm1"))
    assert kernel.dtype == np.float16 and abs(kernel.std() * (128 * 9) ** 0.5 - 1) < 0.02
    assert abs(scale.mean() - 1) < 0.15


@pytest.mark.slow
def test_both_sides_agree_on_a_toy(tmp_path):
    command = [sys.executable, "-m", "benchmarks.full_size", "--scale", "tiny"]
    arguments = ["--folder", str(tmp_path), "--out", str(tmp_path / "result.json")]
    result = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    output = json.loads((tmp_path / "result.json").read_text())
    assert set(output["errors"]) == {
        "prediction",
        "gradient",
        "mid",
        *(f"{k}_{i}" for k in ("down", "up") for i in range(3)),
    }
    assert all(error["float32"] < 1e-4 for error in output["errors"].values())
