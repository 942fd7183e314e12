"""cuDNN's attention against the dense one, where there is a GPU that has it (`pytest tests/gpu`)."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from pea_jax.models.attention import attention
from tests.torch_oracle import normal, relative_error

pytestmark = pytest.mark.skipif(jax.devices()[0].platform != "gpu", reason="no GPU here")


@pytest.mark.parametrize(("length", "keys", "heads"), [(1600, 1600, 10), (364, 364, 20), (1600, 77, 10)])
def test_cudnn_is_the_dense_one(length, keys, heads):
    """Values and gradients at the lengths of Stable Diffusion XL's buckets, in bfloat16 against float32."""
    shapes = [(2, length, heads, 64), (2, keys, heads, 64), (2, keys, heads, 64)]
    arrays = [jnp.asarray(normal(*shape, seed=i), jnp.bfloat16) for i, shape in enumerate(shapes)]
    weight = normal(*shapes[0], seed=3)

    def loss(*arrays):
        return jnp.sum(attention(*arrays).astype(jnp.float32) * weight)

    mesh = jax.make_mesh((1, 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:1])
    exact = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*(x.astype(jnp.float32) for x in arrays))
    with jax.set_mesh(mesh):
        flash = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
        assert "cudnn" in flash.lower(*arrays).as_text()
        for a, b in zip(flash(*arrays), exact, strict=True):
            assert relative_error(a.astype(jnp.float32), b) <= 0.1  # the largest of hundreds of thousands
