"""The autoencoder against PyTorch diffusers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models.vae import VAEConfig, sample_moments
from pea_jax.weights import load_vae
from tests import published_configs
from tests.torch_oracle import compiled, nchw, nhwc, normal, randomised, relative_error


def config(widths: tuple[int, ...], **fields) -> dict:
    down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    return dict(down_block_types=down, up_block_types=up, block_out_channels=widths, norm_num_groups=4, **fields)


# Every published autoencoder has this shape.
PUBLISHED = {**published_configs.SDXL_VAE, "block_out_channels": [8, 16, 24, 24], "norm_num_groups": 4}
CONFIGS = {
    "published": PUBLISHED,
    "odd": config((12, 8, 20, 16), latent_channels=3, in_channels=2, out_channels=5, scaling_factor=0.5),
    "bare": config(
        (8, 16), use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False, latent_channels=16
    ),
}
SIZES = {"published": (2, 24, 32), "odd": (3, 27, 18), "bare": (1, 8, 12)}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    oracle = randomised(AutoencoderKL.from_config(CONFIGS[request.param]))
    oracle.save_pretrained(folder / "vae")
    return request.param, oracle, load_vae(folder)


def test_encode(pair):
    name, oracle, vae = pair
    pixels = normal(*SIZES[name], vae.config.in_channels)
    with torch.no_grad():
        expected = oracle.encode(nchw(pixels)).latent_dist.parameters
    assert relative_error(compiled(vae, "encode")(pixels), nhwc(expected)) <= 1e-4


def test_decode(pair):
    name, oracle, vae = pair
    batch, height, width = SIZES[name]
    latents = normal(batch, height // 4, width // 4, vae.config.latent_channels)
    with torch.no_grad():
        expected = oracle.decode(nchw(latents)).sample
    assert relative_error(compiled(vae, "decode")(latents), nhwc(expected)) <= 1e-4
    assert vae.config.scaling_factor == oracle.config.scaling_factor


def test_sample_moments():
    """Mean and deviation of many draws; log-variances beyond -30 and 20 are clipped as in PyTorch."""
    moments = np.tile(np.array([3.0, -1.0, 0.5, 0.0, -90.0, 40.0], np.float32), (1, 100, 100, 1))
    expected = DiagonalGaussianDistribution(nchw(moments))
    draws = np.asarray(sample_moments(moments, jax.random.key(0)), np.float64).reshape(-1, 3)
    deviation = nhwc(expected.std)[0, 0, 0]
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.05)
    np.testing.assert_allclose(draws.mean(0), nhwc(expected.mean)[0, 0, 0], atol=5 * deviation.max() / 100, rtol=0)
    np.testing.assert_allclose(draws[:, 1], -1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("down_block_types", ["AttnDownEncoderBlock2D"]),
        ("up_block_types", ["UpBlock2D"]),
        ("act_fn", "relu"),
        ("latents_mean", [0.0]),
        ("latents_std", [1.0]),
        ("shift_factor", 0.1159),
        ("force_upcast", None),
        ("scaling_factor", None),
        ("norm_num_groups", 48),
        ("block_out_channels", 64),
        ("layers_per_block", 1.5),
        ("quantiser", True),
    ],
)
def test_unsupported_fields_are_named(field, value):
    with pytest.raises(PeaError, match=field):
        VAEConfig.from_dict({field: value})


def test_scaling_factors():
    """Where the file has none it is Stable Diffusion's, as in diffusers."""
    factors = {name: VAEConfig.from_dict(fields).scaling_factor for name, fields in published_configs.VAES.items()}
    assert factors == {"sd-1.5": 0.18215, "sd-2.1": 0.18215, "sdxl": 0.13025, "sdxl-fp16-fix": 0.13025}


@pytest.mark.parametrize(
    ("force_upcast", "dtype", "expected"),
    [
        (True, "float16", "float32"),
        (None, "float16", "float32"),
        (False, "float16", "float16"),
        (True, "bfloat16", "bfloat16"),
    ],
)
def test_force_upcast_is_about_float16(tmp_path, force_upcast, dtype, expected):
    """An autoencoder that overflows in float16 is not loaded in it; diffusers' default is that it does."""
    oracle = randomised(AutoencoderKL.from_config(CONFIGS["bare"]))
    oracle.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text()) | {"force_upcast": force_upcast}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    vae = load_vae(tmp_path, "", dtype=dtype)
    assert {variable.dtype for variable in jax.tree.leaves(nnx.state(vae))} == {jnp.dtype(expected)}
    latents = jax.ShapeDtypeStruct((1, 4, 4, 16), dtype)
    pixels = jax.eval_shape(vae.decode, latents)
    moments = jax.eval_shape(vae.encode, jax.ShapeDtypeStruct((1, 8, 8, 3), dtype))
    assert pixels.dtype == moments.dtype == expected


def test_latent_size():
    config = VAEConfig(block_out_channels=(4, 4, 4))
    assert config.latent_size(height=24, width=32) == (6, 8)
    for height, width in ((24, 30), (22, 32), (0, 32), (24, -4)):
        with pytest.raises(PeaError, match=f"{width}x{height}: width and height must be multiples of 4"):
            config.latent_size(height, width)
