"""Convolutional blocks against PyTorch."""

import jax.numpy as jnp
import pytest
import torch
from diffusers.models import downsampling, resnet, upsampling

from pea_jax.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from tests.torch_oracle import compiled, filled, nchw, nhwc, normal, randomised, relative_error

FLOAT32 = {"dtype": jnp.float32, "param_dtype": jnp.float32}


@pytest.mark.parametrize(
    ("shape", "out_channels", "groups", "embed_dim"),
    [((2, 8, 8, 32), 32, 8, 64), ((3, 5, 7, 24), 36, 6, 20), ((1, 4, 2, 16), 8, 2, None)],
)
def test_resnet_block(shape, out_channels, groups, embed_dim):
    oracle = randomised(
        resnet.ResnetBlock2D(
            in_channels=shape[-1], out_channels=out_channels, temb_channels=embed_dim, groups=groups, eps=1e-5
        )
    )
    block = ResnetBlock2D(shape[-1], out_channels, time_embed_dim=embed_dim, num_groups=groups, eps=1e-5, **FLOAT32)
    x, embedding = normal(*shape), normal(shape[0], embed_dim or 1, seed=1)
    expected = oracle(nchw(x), torch.from_numpy(embedding) if embed_dim else None)
    output = compiled(filled(block, oracle))(x, embedding if embed_dim else None)
    assert relative_error(output, nhwc(expected)) <= 1e-4


@pytest.mark.parametrize("size", [(8, 8), (5, 8), (1, 3)])
def test_downsample(size):
    oracle = randomised(downsampling.Downsample2D(12, use_conv=True, name="op"))
    x = normal(3, *size, 12)
    assert relative_error(compiled(filled(Downsample2D(12, **FLOAT32), oracle))(x), nhwc(oracle(nchw(x)))) <= 1e-4


@pytest.mark.parametrize("size", [(8, 8), (5, 8), (3, 2)])
def test_downsample_of_the_autoencoder(size):
    oracle = randomised(downsampling.Downsample2D(12, use_conv=True, padding=0, name="op"))
    layer = filled(Downsample2D(12, padding=(0, 1), **FLOAT32), oracle)
    x = normal(3, *size, 12)
    assert relative_error(layer(x), nhwc(oracle(nchw(x)))) <= 1e-4


@pytest.mark.parametrize("target", [None, (10, 6), (9, 6), (10, 5), (9, 5)])
def test_upsample(target):
    oracle = randomised(upsampling.Upsample2D(12, use_conv=True))
    x = normal(3, 5, 3, 12)
    output = filled(Upsample2D(12, **FLOAT32), oracle)(x, target)
    assert relative_error(output, nhwc(oracle(nchw(x), target))) <= 1e-4
