"""What the compiler for TPUs makes of a resnet of Stable Diffusion XL: one layout, norms and SiLU in what is fused."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax import chips, hlo
from pea_jax import mesh as meshes
from pea_jax.models.layers import abstract
from pea_jax.models.resnet import ResnetBlock2D

BFLOAT16 = dict(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
PICTURES, WIDTH, TIME = (8, 40, 40, 640), 640, 1280  # the middle level at 640x640


def test_a_resnet_and_its_gradient(tmp_path):
    mesh = meshes.make_mesh(devices=chips.topology_devices("v5e:2x2")[:1])
    here = meshes.replicated(mesh)
    block = abstract(lambda: ResnetBlock2D(WIDTH, WIDTH, time_embed_dim=TIME, num_groups=32, eps=1e-5, **BFLOAT16))
    graphdef, params = nnx.split(block)

    def placed(shape):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=here)

    def loss(x, params, time_embedding):
        return jnp.mean(jnp.square(nnx.merge(graphdef, params)(x, time_embedding).astype(jnp.float32)))

    arguments = placed(PICTURES), jax.tree.map(lambda x: placed(x.shape), params), placed((PICTURES[0], TIME))
    with jax.default_matmul_precision("default"):
        lowered = jax.jit(jax.grad(loss)).lower(*arguments)
    program = hlo.instructions(hlo.plan_memory(lowered, tmp_path).text)
    pictures = [
        (one.opcode, array) for one in program for array in one.results if math.prod(array.dims) == math.prod(PICTURES)
    ]
    computed = [array for opcode, array in pictures if opcode == "fusion"]
    assert len(computed) >= 4 and len({array.minor_to_major for array in computed}) == 1
    # A norm's float32 stays within the chip, here; with eight times as many rows two of the arrays no longer fit.
    assert not any(array.in_memory for array in computed if array.dtype == "f32")
    # Into the compiler's layout once; the argument of a program lies as it is given.
    assert sum(1 for opcode, _ in pictures if opcode in ("copy", "transpose")) <= 1
