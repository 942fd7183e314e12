"""Run by test_step: loss and gradient on one device and on meshes of eight, of the true task and of layers in 8 bits.

python -m tests.distill.eight_devices FOLDER
"""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax import mesh as meshes
from pea_jax import partition
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.distill.task import DistillationTask, LossWeights
from pea_jax.models import layers
from pea_jax.models.calls import Calls, make_calls
from pea_jax.models.quantisation import quantise
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.weights import load_unet
from tests import tiny_sdxl

MESHES = (dict(data=8, fsdp=1), dict(data=2, fsdp=4))


class Layers(nnx.Module):
    """A convolution behind a linear layer, their frozen weights in 8 bits."""

    def __init__(self):
        precision = dict(dtype=jnp.float32, param_dtype=jnp.float32)
        self.linear, self.conv = layers.Linear(16, 24, **precision), layers.Conv(24, 8, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(jnp.tanh(self.linear(x)))


def compare_in_8_bits() -> None:
    """Split, gathered where they are used, and again for the gradient."""
    rng = np.random.default_rng(1)
    model = Layers()
    nnx.update(model, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), nnx.state(model)))
    graphdef, params = nnx.split(quantise(model, "int8"))
    x = rng.normal(size=(8, 5, 4, 16)).astype(np.float32)

    def loss(x: jax.Array, params: nnx.State, calls: Calls) -> jax.Array:
        return jnp.sum(jnp.square(calls.layer(nnx.merge(graphdef, params), x)))

    one = jax.jit(jax.value_and_grad(loss), static_argnums=2)(x, params, make_calls())
    mesh = meshes.make_mesh(**MESHES[1])
    split = partition.shard_frozen(params, mesh)
    narrow = [leaf for leaf in jax.tree.leaves(split) if leaf.dtype == jnp.int8]
    assert len(narrow) == 2 and not any(leaf.sharding.is_fully_replicated for leaf in narrow)
    calls = make_calls(meshes.gathering(mesh))
    many = jax.jit(jax.value_and_grad(loss), static_argnums=2)(meshes.put_batch(x, mesh), split, calls)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(a).max()))


def main(folder: pathlib.Path) -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_default_matmul_precision", "highest")
    partition.SMALLEST_SHARDED = 0  # or nothing of a model this small would be
    compare_in_8_bits()
    tiny_sdxl.random_unet(24, 16).save_pretrained(folder / "unet")
    unet, unet_params = nnx.split(load_unet(folder))
    adapter, params = nnx.split(PEAdapter(AdapterDims(12, 20, 16, 24), rngs=nnx.Rngs(0)))
    task = DistillationTask(
        adapter=adapter,
        unet=unet,
        vae=None,
        student=None,
        teacher=None,
        schedule=NoiseSchedule.from_config(SchedulerConfig()),
        scaling_factor=1.0,
        weights=LossWeights(conditioning=1.0, contrast=1.0),
    )
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    frozen = dict(unet=unet_params, null_states=normal(1, 5, 12), null_prompt_embeds=normal(1, 5, 24))
    batch = dict(
        moments=normal(8, 8, 8, 8),
        time_ids=normal(8, 6),
        native=np.arange(8, dtype=np.float32) % 2,
        states=normal(8, 5, 12),
        prompt_embeds=normal(8, 5, 24),
        pooled_prompt_embeds=normal(8, 16),
    )
    key = jax.random.key(1)
    one = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(params, frozen, batch, key)
    for axes in MESHES:
        mesh = meshes.make_mesh(**axes)
        sharded = jax.device_put(frozen, meshes.replicated(mesh))
        sharded["unet"] = partition.shard_frozen(unet_params, mesh)
        split = any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(sharded["unet"]))
        assert split == (mesh.shape["fsdp"] > 1), "the frozen UNet is not placed as the mesh says"
        many_task = dataclasses.replace(task, mesh=mesh)
        placed = jax.device_put((params, key), meshes.replicated(mesh))
        many = jax.jit(jax.value_and_grad(many_task.loss, has_aux=True))(
            placed[0], sharded, meshes.put_batch(batch, mesh), placed[1]
        )
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(a).max()), err_msg=str(axes))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
