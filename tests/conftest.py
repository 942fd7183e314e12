"""Settings under which every test runs."""

import atexit
import importlib.metadata
import os
import shutil
import signal
import tempfile

# In a shell's background Ctrl-C is ignored, and by all that tests start there, and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Spinning OpenMP threads of PyTorch make everything beside them many times slower; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Toy models take longer to compile than to run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # The older emitters of XLA's CPU backend compile in two thirds of the time; later versions have none, and end the
    # process at a flag that they do not know.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
if "PYTEST_XDIST_WORKER" not in os.environ:
    # In place of the user's own. What one worker or command has compiled the others, who inherit it, need not.
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="pea_jax_tests")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.environ["XDG_CACHE_HOME"], "xla")
    os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"  # else the folder's name is part of every key
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with a tiny base model and two shards, and the config fields that point to them."""
    from tests import commands  # most tests need none of what it imports

    folder = tmp_path_factory.mktemp("world")
    return folder, commands.write_world(folder)
