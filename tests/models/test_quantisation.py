"""Frozen weights in 8 bits: what they compute, what they pass back, what they hold in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from flax import nnx

from benchmarks.networks import SIZES
from benchmarks.random_models import random_network
from pea_jax import mesh as meshes
from pea_jax.errors import PeaError
from pea_jax.models import layers
from pea_jax.models.quantisation import quantise
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from tests.torch_oracle import normal, relative_error

CONFIG = SIZES["tiny"].unet
WIDTH, POOLED = CONFIG["cross_attention_dim"], 16


def unet() -> UNet2DCondition:
    return random_network(UNet2DCondition, UNetConfig.from_dict, CONFIG, jnp.float32, mesh=meshes.make_mesh())


def dequantised(model):
    for _, module in nnx.iter_modules(model):
        for name in ("weight", "kernel"):
            weight = getattr(module, name, nnx.Param(None)).get_value()
            if isinstance(weight, qwix.QArray):
                setattr(module, name, nnx.Param(qwix.dequantize(weight)))
    return model


def test_a_unet_computes_with_the_rounded_weights_and_passes_their_gradient():
    graphdef, exact = nnx.split(unet())
    text_embeds, time_ids = normal(2, POOLED, seed=1), jnp.asarray([[64, 64, 0, 0, 64, 64]] * 2, jnp.float32)

    def scalar(prompt_embeds, graphdef, params):
        model = nnx.merge(graphdef, params)
        sample, timesteps = normal(2, 4, 4, 4), jnp.asarray([10, 700])
        prediction, _ = model(sample, timesteps, prompt_embeds, text_embeds=text_embeds, time_ids=time_ids)
        return jnp.sum(prediction * normal(2, 4, 4, 4, seed=3)), prediction

    run = jax.jit(jax.value_and_grad(scalar, has_aux=True), static_argnums=1)
    rounded = quantise(unet(), "int8")
    (_, ours), gradient = run(normal(2, 5, WIDTH, seed=2), *nnx.split(rounded))
    (_, oracle), its_gradient = run(normal(2, 5, WIDTH, seed=2), graphdef, nnx.state(dequantised(rounded)))
    (_, precise), true_gradient = run(normal(2, 5, WIDTH, seed=2), graphdef, exact)
    for found, same, near in ((ours, oracle, precise), (gradient, its_gradient, true_gradient)):
        assert relative_error(found, same) < 1e-4
        assert 1e-4 < relative_error(found, near) < 0.3


LAYERS = {
    "linear": (lambda **p: layers.Linear(24, 40, **p), (3, 7, 24)),
    "pointwise": (lambda **p: layers.PointwiseConv(24, 40, **p), (2, 4, 4, 24)),
    "conv": (lambda **p: layers.Conv(24, 40, **p), (2, 6, 5, 24)),
    "strided to few pixels": (lambda **p: layers.Conv(24, 40, stride=2, **p), (2, 4, 4, 24)),
}


@pytest.mark.parametrize("qtype", ["int8", "float8_e4m3fn"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_likewise(kind, qtype):
    holder, x = layer(kind)
    rounded = quantise(holder, qtype).layer
    ours, pullback = jax.vjp(rounded, x)
    oracle, its_pullback = jax.vjp(dequantised(holder).layer, x)
    direction = normal(*ours.shape, seed=4)
    assert relative_error(ours, oracle) < 1e-5
    assert relative_error(pullback(direction)[0], its_pullback(direction)[0]) < 1e-5
    precise = layer(kind)[0].layer(x)
    assert 1e-4 < relative_error(ours, precise) < (0.05 if qtype == "int8" else 0.3)


def layer(kind: str) -> tuple[nnx.Dict, np.ndarray]:
    make, shape = LAYERS[kind]
    made = make(dtype=jnp.float32, param_dtype=jnp.float32)
    weight = made.kernel if kind in ("conv", "strided to few pixels") else made.weight
    fan_in = weight.size / 40
    weight[...], made.bias[...] = normal(*weight.shape, seed=5) / fan_in**0.5, normal(40, seed=6)
    return nnx.Dict(layer=made), normal(*shape, seed=7)


@pytest.mark.parametrize("qtype", ["int8", "float8_e4m3fn"])
def test_rounded_activations_cost_little_more_and_pass_the_gradient_of_the_weights(qtype):
    holder, x = layer("linear")
    ours, pullback = jax.vjp(quantise(holder, qtype, activations=True).layer, x)
    other, its_pullback = jax.vjp(quantise(layer("linear")[0], qtype).layer, x)
    assert 1e-4 < relative_error(ours, other) < (0.05 if qtype == "int8" else 0.3)
    direction = normal(*ours.shape, seed=4)
    assert relative_error(pullback(direction)[0], its_pullback(direction)[0]) < 1e-5


@pytest.mark.parametrize(("kind", "name", "others"), [("conv", "kernel", (0, 1, 2)), ("linear", "weight", (1,))])
def test_a_weight_is_off_by_half_a_step_at_most(kind, name, others):
    """With one step for each output channel."""
    holder, _ = layer(kind)
    weight = np.asarray(getattr(holder.layer, name)[...])
    rounded = getattr(quantise(holder, "int8").layer, name).get_value()
    assert rounded.qvalue.dtype == jnp.int8
    largest = np.abs(weight).max(others, keepdims=True)
    assert largest.size == 40
    np.testing.assert_allclose(rounded.scale, largest / 127.5, rtol=1e-5)
    error = np.abs(np.asarray(rounded.qvalue, np.float32) * np.asarray(rounded.scale) - weight)
    assert np.all(error <= 0.501 * np.asarray(rounded.scale))


def test_memory_falls_and_nothing_wide_is_kept_for_the_gradient():
    layer = layers.Linear(256, 512, dtype=jnp.float32, param_dtype=jnp.float32)
    layer.weight[...] = normal(512, 256)
    wide = layer.weight[...].nbytes
    holder = nnx.Dict(proj=layer)
    quantise(holder, "int8")
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(holder).proj.weight)) < 0.27 * wide
    _, pullback = jax.vjp(holder.proj, normal(4, 256))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pullback)) < 0.27 * wide


def test_first_and_last_convolution_keep_their_weights():
    model = quantise(nnx.Dict(conv_in=layer("conv")[0].layer, mid=layer("conv")[0].layer), "int8")
    assert model.conv_in.kernel[...].dtype == jnp.float32
    assert model.mid.kernel.get_value().qvalue.dtype == jnp.int8


def test_abstract_weights_become_abstract():
    model = nnx.eval_shape(lambda: UNet2DCondition(UNetConfig.from_dict(CONFIG)))
    kernels = [leaf for leaf in jax.tree.leaves(nnx.state(quantise(model, "int8"))) if leaf.dtype == jnp.int8]
    assert kernels and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in kernels)


def test_an_unknown_type_is_refused():
    with pytest.raises(PeaError, match="config.quantisation.weights='int3': not known; choose from int8, float8_e4m3f"):
        quantise(layer("conv")[0], "int3")
