"""The count of operations, against formulas and against the compiler's own."""

import types

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from pea_jax import flops
from pea_jax.models.unet import UNet2DCondition
from pea_jax.models.unet_config import UNetConfig
from tests.published_configs import SDXL


def of(function, *arguments) -> float:
    return flops.count(jax.jit(function).trace(*arguments).jaxpr)


def test_a_matrix_product_and_its_gradient():
    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    assert of(jnp.matmul, a, b) == 2 * 3 * 4 * 5
    assert of(jnp.matmul, jnp.zeros((7, 3, 4)), jnp.zeros((7, 4, 5))) == 7 * 2 * 3 * 4 * 5
    both = jax.grad(lambda a, b: jnp.sum(jnp.matmul(a, b) ** 2), argnums=(0, 1))
    assert of(both, a, b) == 3 * 2 * 3 * 4 * 5


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_gradient(stride):
    x, kernel = jnp.zeros((2, 8, 6, 3)), jnp.zeros((3, 3, 3, 5))

    def convolve(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dimensions)

    forward = 2 * (2 * 8 * 6 * 5 // stride**2) * 9 * 3
    assert of(convolve, x, kernel) == forward
    gradient = of(jax.grad(lambda x: jnp.sum(convolve(x, kernel) ** 2)), x)
    assert gradient == pytest.approx(2 * forward, rel=0.3)  # zeros at the edges are padded differently


def test_loops_count_as_often_as_they_run_and_conditions_once():
    x = jnp.zeros((4, 4))
    assert of(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=6)[0], x) == 6 * 128
    assert of(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), x) == 2 * 128


@pytest.fixture(scope="module")
def sdxl():
    """Stable Diffusion XL's UNet on one picture of 512x512, traced."""
    unet = nnx.eval_shape(lambda: UNet2DCondition(UNetConfig.from_dict(SDXL), rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(unet)
    given = dict(
        sample=jax.ShapeDtypeStruct((1, 64, 64, 4), jnp.float32),
        timesteps=jax.ShapeDtypeStruct((1,), jnp.int32),
        prompt_embeds=jax.ShapeDtypeStruct((1, 77, 2048), jnp.float32),
        text_embeds=jax.ShapeDtypeStruct((1, 1280), jnp.float32),
        time_ids=jax.ShapeDtypeStruct((1, 6), jnp.float32),
    )
    return jax.jit(lambda params, given: nnx.merge(graphdef, params)(**given)[0]).trace(params, given)


def test_the_unet_has_what_its_formula_says(sdxl):
    """The sum over all layers: a convolution 2 in out k^2 a pixel; a transformer block of width c on N pixels and 77
    tokens of width 2048 36 N c^2 + 4 N^2 c + 308 N c + 308 2048 c; around the blocks 4 N c^2."""
    assert flops.count(sdxl.jaxpr) == pytest.approx(1.589e12, rel=0.002)


def test_the_unet_has_what_the_compiler_counts(sdxl):
    """The compiler adds norms, activations and softmax."""
    compilers = sdxl.lower().cost_analysis()["flops"]
    assert 0.98 * compilers < flops.count(sdxl.jaxpr) < 1.02 * compilers


def test_peaks():
    def device(kind: str):
        return types.SimpleNamespace(device_kind=kind)

    assert flops.peak_flops(device("NVIDIA H100 80GB HBM3")) == 989e12
    assert flops.peak_flops(device("TPU v5 lite")) == 197e12
    assert flops.peak_flops(device("NVIDIA L40S")) == 362e12
    assert flops.peak_flops(jax.devices()[0]) is None
