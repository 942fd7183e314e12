"""What ends a command, and how it says so."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_memory_that_is_not_there():
    """The commonest end of a first try on a GPU: one line with advice, no traceback."""
    program = "import jax.numpy as jnp; from pea_jax import command; command.run(lambda: jnp.zeros(2**46))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("error: not enough memory (RESOURCE_EXHAUSTED: ")
    assert "--config.num_microbatches" in done.stderr and done.stderr.count("\n") == 1
