"""The benchmark of the input runs on our side; the other side's library is no part of the tests' environment."""

import subprocess
import sys

from benchmarks.input import write_shards


def test_our_side(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.input.PICTURES", 8)
    monkeypatch.setattr("benchmarks.input.SIZE", (64, 64))
    write_shards(tmp_path)
    command = [sys.executable, "-m", "benchmarks.input", "--folder", str(tmp_path), "--side", "pea_jax"]
    result = subprocess.run([*command, "--batches", "1"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.splitlines()[-1]) > 0
