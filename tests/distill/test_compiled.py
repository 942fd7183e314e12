"""Steps compiled ahead: one for each shape, before the first; nothing is moved between host and device in them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pea_jax import mesh as meshes
from pea_jax.distill.compiled import CompiledStep
from pea_jax.distill.step import TrainState, make_optimizer, make_train_step
from tests.distill.test_step import SCHEDULE, QuadraticTask

MESH = meshes.make_mesh(devices=jax.devices()[:1])


@pytest.fixture
def start():
    optimizer, schedule = make_optimizer(**SCHEDULE)
    state = TrainState.create({"w": jnp.ones(3)}, optimizer, jax.random.key(0), ema=False)
    state, frozen = jax.device_put((state, {"scale": jnp.float32(2.0)}), meshes.replicated(MESH))
    traced = []

    def train_step(state, frozen, batch):
        traced.append(batch.shape)
        return make_train_step(QuadraticTask(), optimizer, schedule)(state, frozen, batch)

    batches = [jax.ShapeDtypeStruct((rows, 3), jnp.float32, sharding=meshes.batch_sharding(MESH)) for rows in (2, 4, 6)]
    return CompiledStep(train_step, state, frozen, batches, MESH), state, traced


def test_all_shapes_are_compiled_before_the_first_step(start):
    step, state, traced = start
    assert traced == [(2, 3), (4, 3), (6, 3)]
    for number, rows in enumerate((4, 2, 6, 4)):
        values = np.full((rows, 3), 5.0, np.float32)
        with jax.transfer_guard("disallow"):
            batch = meshes.put_batch(values, MESH)
            state, metrics = step(state, batch)
            assert jax.device_get(metrics)["loss"] > 0
        assert int(state.step) == number + 1 and step.operations(batch) == (0, 0)
    assert len(traced) == 3


def test_a_batch_that_lies_on_the_host_is_refused(start):
    step, state, _ = start
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        step(state, np.ones((4, 3), np.float32))


def test_programs_are_kept_in_the_users_cache(tmp_path):
    """Unless the environment names another folder."""
    script = "import jax; from pea_jax import command; command.prepare_devices(); "
    script += "print(jax.config.jax_compilation_cache_dir)"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    for name, folder in (("XDG_CACHE_HOME", tmp_path / "pea_jax" / "xla"), ("JAX_COMPILATION_CACHE_DIR", tmp_path)):
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment | {name: str(tmp_path)}, capture_output=True, text=True
        )
        assert result.stdout.strip() == str(folder), result.stderr
