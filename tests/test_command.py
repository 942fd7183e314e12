"""What ends a command, and how it says so."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_memory_that_is_not_there():
    """The commonest end of a first try on a GPU: one line with advice, no traceback."""
    program = "import jax.numpy as jnp; from pea_jax import command; command.run(lambda: jnp.zeros(2**46))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("error: not enough memory (RESOURCE_EXHAUSTED: ")
    assert "--config.num_microbatches" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("reached", ["pathlib.Path(folder, 'model').exists()", "command.check_file('--out', target)"])
def test_a_folder_of_somebody_else(tmp_path, reached):
    """To ask whether a path is there is an error where one may not look; root may look everywhere."""
    (tmp_path / "private").mkdir(mode=0)
    lines = [
        "import os, pathlib, sys",
        "from pea_jax import command",
        "folder = sys.argv.pop()",
        "target = pathlib.Path(folder, 'out.png')",
        "os.geteuid() or (os.chmod(os.path.dirname(folder), 0o755), os.seteuid(65534))",
        f"command.run(lambda: {reached})",
    ]
    folder = str(tmp_path / "private")
    command = [sys.executable, "-c", "\n".join(lines), folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert f"{folder}" in done.stderr and "Permission denied" in done.stderr


def test_a_screen_that_is_closed():
    done = subprocess.run(
        f"exec >&-; {sys.executable} -m pea_jax.data.inspect --config=nowhere.py",
        shell=True, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: --config nowhere.py: no such file")
