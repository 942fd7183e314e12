"""The count of operations, against formulas and against the compiler's own."""

import types

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from pea_jax import flops
from pea_jax.models.splash import splash_attention
from pea_jax.models.unet import UNet2DCondition
from pea_jax.models.unet_config import UNetConfig
from tests.published_configs import SDXL


def of(function, *arguments, **which) -> float:
    return flops.count(jax.jit(function).trace(*arguments).jaxpr, **which)


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


def test_what_is_computed_again_is_counted_apart():
    def layer(x, kernel):
        return jnp.tanh(jnp.tanh(x @ kernel) @ kernel)

    def gradient(layer):
        return jax.grad(lambda x, kernel: jnp.sum(layer(layer(x, kernel), kernel)))

    x, kernel, product = jnp.ones((3, 8)), jnp.ones((8, 8)), 2 * 3 * 8 * 8
    remat = gradient(jax.checkpoint(layer))
    assert of(gradient(layer), x, kernel) == of(remat, x, kernel, again=False) == 8 * product
    assert of(remat, x, kernel) == 12 * product  # two layers of two products each once more
    nested = gradient(jax.checkpoint(lambda x, kernel: jax.checkpoint(layer)(x, kernel)))
    assert of(nested, x, kernel, again=False) == 8 * product


def test_an_attention_kernel_counts_all_its_blocks_and_a_shard_map_all_its_devices():
    """128 queries, 256 keys: two products of 2 T S D for each head and row, in the backward pass seven more."""
    arrays = [jnp.zeros((3, length, 2, 64)) for length in (128, 256, 256)]
    product = 2 * 128 * 256 * 64 * 2 * 3
    assert of(splash_attention, *arrays) == 2 * product
    gradient = jax.grad(lambda *x: jnp.sum(splash_attention(*x)), argnums=(0, 1, 2))
    assert of(gradient, *arrays) == pytest.approx((2 + 7) * product, rel=0.001)  # and a sum, written as a product
    assert of(gradient, *arrays, again=False) == pytest.approx((2 + 4) * product, rel=0.001)
    mesh = AbstractMesh((3,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(splash_attention, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    assert of(split, *arrays) == 2 * product


def test_cudnn_attention(monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    arrays = [jnp.zeros((3, length, 2, 64), jnp.bfloat16) for length in (128, 78, 78)]
    product = 2 * 128 * 78 * 64 * 2 * 3

    def attend(*arrays):
        return jnp.sum(jax.nn.dot_product_attention(*arrays, implementation="cudnn"))

    assert of(attend, *arrays) == 2 * product
    gradient = jax.grad(attend, argnums=(0, 1, 2))
    assert of(gradient, *arrays) == (2 + 5) * product
    assert of(gradient, *arrays, again=False) == pytest.approx((2 + 4) * product)


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
    assert flops.peak_flops(device("NVIDIA H100 PCIe")) == 756e12
    assert flops.peak_flops(device("NVIDIA H200 NVL")) == 835e12
    assert flops.peak_flops(device("NVIDIA H200")) == 989e12
    for unknown in ("NVIDIA L40", "NVIDIA RTX A1000", "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
                    "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA A10"):  # fmt: skip
        assert flops.peak_flops(device(unknown)) is None, unknown
    assert flops.peak_flops(jax.devices()[0]) is None
