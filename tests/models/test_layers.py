"""Layers against PyTorch, or against closed forms in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from flax import nnx

from pea_jax.models import layers
from tests.torch_oracle import filled, nchw, nhwc, normal, randomised, relative_error

FLOAT32 = {"dtype": jnp.float32, "param_dtype": jnp.float32}


BUILDS = {
    "linear": lambda: layers.Linear(3, 5, **FLOAT32),
    "convolutions": lambda: nnx.List([layers.Conv(3, 5, **FLOAT32), layers.PointwiseConv(3, 5, **FLOAT32)]),
    "norms": lambda: nnx.List([layers.GroupNorm(6, 2, eps=1e-6, **FLOAT32), layers.layer_norm(4, **FLOAT32)]),
    "flax's": lambda: nnx.List([layers.embedding(7, 4, **FLOAT32), layers.rms_norm(4, **FLOAT32)]),
    "bfloat16": lambda: layers.Linear(3, 5, dtype=jnp.float32, param_dtype=jnp.bfloat16),
    "alike": lambda: nnx.List(layers.alike(3, lambda: layers.Linear(3, 5, **FLOAT32))),
    "none alike": lambda: nnx.List(layers.alike(0, lambda: layers.Linear(3, 5, **FLOAT32))),
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_abstract_is_what_flax_calls_so(build):
    ours, theirs = layers.abstract(build), nnx.eval_shape(build)
    assert nnx.graphdef(ours) == nnx.graphdef(theirs) and nnx.state(ours) == nnx.state(theirs)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(nnx.state(build())))


def test_no_parameter_of_negative_size():
    with pytest.raises(ValueError, match="-3"):
        layers.abstract(lambda: layers.Linear(-3, 5, **FLOAT32))


@pytest.mark.parametrize(("shape", "groups"), [((2, 8, 8, 32), 8), ((3, 5, 7, 24), 4), ((1, 1, 3, 6), 3)])
def test_group_norm(shape, groups):
    oracle = randomised(torch.nn.GroupNorm(groups, shape[-1], eps=1e-6))
    layer = filled(layers.GroupNorm(shape[-1], groups, eps=1e-6, **FLOAT32), oracle)
    x = normal(*shape) * 3 + 1
    assert relative_error(layer(x), nhwc(oracle(nchw(x)))) <= 1e-4


@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_group_norm_keeps_its_digits_when_the_mean_is_large(mean):
    """Each channel has its own large mean; the oracle is float64 on the same float32 input."""
    x = normal(2, 9, 7, 8) + np.float32(mean) * normal(8, seed=1)
    grouped = x.astype(np.float64).reshape(2, 63, 4, 2)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    expected = centred / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)
    output = layers.GroupNorm(8, 4, eps=1e-6, **FLOAT32)(x)
    assert relative_error(output, expected.reshape(x.shape)) <= 1e-5


def test_group_norm_of_one_channel_a_group_with_a_large_mean():
    x = normal(2, 9, 7, 8) + np.float32(1e3)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((1, 2), keepdims=True)) / wide.std((1, 2), keepdims=True)
    assert relative_error(layers.GroupNorm(8, 8, eps=0.0, **FLOAT32)(x), expected) <= 1e-3


def test_group_norm_gradient():
    oracle = randomised(torch.nn.GroupNorm(4, 16))
    layer = filled(layers.GroupNorm(16, 4, eps=1e-5, **FLOAT32), oracle)
    x, weight = normal(2, 5, 3, 16) + 2, normal(2, 5, 3, 16, seed=1)
    x_torch = nchw(x).requires_grad_()
    (oracle(x_torch) * nchw(weight)).sum().backward()
    gradient = jax.grad(lambda x: (layer(x) * weight).sum())(x)
    assert relative_error(gradient, nhwc(x_torch.grad)) <= 1e-4


@pytest.mark.parametrize("shape", [(2, 7, 12), (3, 1, 5), (1, 4, 64)])
def test_layer_norm(shape):
    oracle = randomised(torch.nn.LayerNorm(shape[-1]))
    layer = filled(layers.layer_norm(shape[-1], **FLOAT32), oracle)
    x = normal(*shape) + 5
    assert relative_error(layer(x), oracle(torch.from_numpy(x)).detach()) <= 1e-4


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [
        ((8, 8), 1, (1, 1)),
        ((5, 8), 2, (1, 1)),
        ((7, 6), 2, (0, 1)),
        ((2, 2), 1, (1, 1)),
        ((1, 2), 1, (1, 1)),
        ((1, 1), 1, (1, 1)),
        ((2, 2), 2, (1, 1)),
    ],
)
def test_conv(size, stride, padding):
    oracle = randomised(torch.nn.Conv2d(6, 10, 3, stride=stride))
    layer = filled(layers.Conv(6, 10, stride=stride, padding=padding, **FLOAT32), oracle)
    x = normal(3, *size, 6)
    assert relative_error(layer(x), nhwc(oracle(torch.nn.functional.pad(nchw(x), padding * 2)))) <= 1e-4


def test_pointwise_conv():
    oracle = randomised(torch.nn.Conv2d(6, 10, 1))
    layer = filled(layers.PointwiseConv(6, 10, **FLOAT32), oracle)
    x = normal(3, 5, 4, 6)
    assert relative_error(layer(x), nhwc(oracle(nchw(x)))) <= 1e-4


@pytest.mark.parametrize("features", [32, 64, 33])
@pytest.mark.parametrize(("flip", "shift"), [(True, 0), (False, 1), (True, 0.5)])
def test_timestep_embedding(features, flip, shift):
    timesteps = np.array([0, 1, 17, 500.5, 999], np.float32)
    expected = get_timestep_embedding(torch.from_numpy(timesteps), features, flip, shift)
    embedding = layers.timestep_embedding(timesteps, features, flip_sin_to_cos=flip, freq_shift=shift)
    # Angles reach 1000 radians, where neighbouring float32 numbers are 6e-5 apart.
    np.testing.assert_allclose(embedding, expected, atol=2e-4)


def test_timestep_network():
    oracle = randomised(TimestepEmbedding(32, 48))
    layer = filled(layers.TimestepEmbedding(32, 48, **FLOAT32), oracle)
    x = normal(3, 32)
    assert relative_error(layer(x), oracle(torch.from_numpy(x)).detach()) <= 1e-4


def test_half_precision_is_computed_in_half_precision():
    x = jnp.ones((1, 4, 4, 8), jnp.bfloat16)
    for layer in (
        layers.GroupNorm(8, 2, eps=1e-5, dtype=jnp.bfloat16, param_dtype=jnp.float32),
        layers.Conv(8, 8, dtype=jnp.bfloat16, param_dtype=jnp.float32),
        layers.PointwiseConv(8, 8, dtype=jnp.bfloat16, param_dtype=jnp.float32),
    ):
        assert layer(x).dtype == jnp.bfloat16
