"""Settings under which every test runs."""

import os

# Spinning OpenMP threads of PyTorch make everything beside them many times slower; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
