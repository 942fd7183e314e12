"""The benchmark of the index runs, on a toy."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_small_index(tmp_path):
    command = [sys.executable, "-m", "benchmarks.index", "--members", "400", "--shards", "3", "--rounds", "1"]
    arguments = ["--kilobytes", "2", "--folder", str(tmp_path), "--out", str(tmp_path / "result.json")]
    result = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "of the speed of reading all bytes" in result.stdout and "first batch" in result.stdout
    figures = json.loads((tmp_path / "result.json").read_text())
    assert figures["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.tar")) > 400 * 1000
    assert len(list(tmp_path.glob("*.pea_index"))) == 3
