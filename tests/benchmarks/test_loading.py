"""The benchmark of loading runs, on a toy."""

import json
import pathlib
import subprocess
import sys

from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_both_sides_load_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "benchmarks.loading", "--scale", "tiny", "--rounds", "1"]
    arguments = ["--folder", str(tmp_path), "--out", str(tmp_path / "result.json")]
    result = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "times the bytes of its parameters" in result.stdout and "times as fast as diffusers" in result.stdout
    rounds = json.loads((tmp_path / "result.json").read_text())["rounds"]
    written = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    parameters = sum(tensor.size for tensor in written.values())
    for side in ("pea_jax", "diffusers"):
        assert rounds[side][0]["parameters"] == 4 * parameters  # bytes, in float32
        assert rounds[side][0]["seconds"] > 0 and rounds[side][0]["growth"] > 0
