"""The autoencoder of Stable Diffusion (diffusers `AutoencoderKL`)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import layers
from pea_jax.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from pea_jax.models.transformer_2d import Attention
from pea_jax.models.vae_config import VAEConfig

__all__ = ["AutoencoderKL", "VAEConfig", "sample_moments"]

EPS = 1e-6


class SpatialAttention(Attention):
    """Single-head self-attention over the pixels of `[B, H, W, C]`, with a residual."""

    def __init__(self, channels: int, num_groups: int, **precision: Any):
        super().__init__(channels, num_heads=1, qkv_bias=True, **precision)
        self.group_norm = layers.GroupNorm(channels, num_groups, eps=EPS, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # pixels, not tokens
        batch, height, width, channels = x.shape
        y = self.group_norm(x).reshape(batch, height * width, channels)
        return x + super().__call__(y).reshape(x.shape)


class MidBlock(nnx.Module):
    """A resnet, optionally attention, a resnet; `[B, H, W, C]` to the same shape."""

    def __init__(self, channels: int, num_groups: int, *, add_attention: bool, **precision: Any):
        self.resnets = nnx.List(_resnets([channels] * 2, channels, num_groups, **precision))
        self.attentions = nnx.List([SpatialAttention(channels, num_groups, **precision)] if add_attention else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class DownEncoderBlock2D(nnx.Module):
    """Resnets, then a downsampler that pads below and to the right only."""

    def __init__(
        self, widths: list[int], out_channels: int, num_groups: int, *, add_downsample: bool, **precision: Any
    ):
        self.resnets = nnx.List(_resnets(widths, out_channels, num_groups, **precision))
        downsamplers = [Downsample2D(out_channels, padding=(0, 1), **precision)] if add_downsample else []
        self.downsamplers = nnx.List(downsamplers)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpDecoderBlock2D(nnx.Module):
    """Resnets, then an upsampler."""

    def __init__(self, widths: list[int], out_channels: int, num_groups: int, *, add_upsample: bool, **precision: Any):
        self.resnets = nnx.List(_resnets(widths, out_channels, num_groups, **precision))
        self.upsamplers = nnx.List([Upsample2D(out_channels, **precision)] if add_upsample else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


def _resnets(widths: list[int], out_channels: int, num_groups: int, **precision: Any) -> list[ResnetBlock2D]:
    """One resnet for each input width."""
    return [ResnetBlock2D(width, out_channels, num_groups=num_groups, eps=EPS, **precision) for width in widths]


def _block_widths(block_out_channels: tuple[int, ...], layers_per_block: int) -> list[list[int]]:
    """Input widths of the resnets of every block."""
    before = (block_out_channels[0], *block_out_channels[:-1])
    return [[a] + [b] * (layers_per_block - 1) for a, b in zip(before, block_out_channels, strict=True)]


class Encoder(nnx.Module):
    """`[B, H, W, in_channels]` to `[B, h, w, 2 * latent_channels]`."""

    def __init__(self, config: VAEConfig, **precision: Any):
        channels, groups = config.block_out_channels, config.norm_num_groups
        last = len(channels) - 1
        self.conv_in = layers.Conv(config.in_channels, channels[0], **precision)
        self.down_blocks = nnx.List(
            DownEncoderBlock2D(widths, channels[i], groups, add_downsample=i < last, **precision)
            for i, widths in enumerate(_block_widths(channels, config.layers_per_block))
        )
        self.mid_block = MidBlock(channels[-1], groups, add_attention=config.mid_block_add_attention, **precision)
        self.conv_norm_out = layers.GroupNorm(channels[-1], groups, eps=EPS, **precision)
        self.conv_out = layers.Conv(channels[-1], 2 * config.latent_channels, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.conv_in, *self.down_blocks, self.mid_block):
            x = layer(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class Decoder(nnx.Module):
    """`[B, h, w, latent_channels]` to `[B, H, W, out_channels]`."""

    def __init__(self, config: VAEConfig, **precision: Any):
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        last = len(channels) - 1
        self.conv_in = layers.Conv(config.latent_channels, channels[0], **precision)
        self.mid_block = MidBlock(channels[0], groups, add_attention=config.mid_block_add_attention, **precision)
        self.up_blocks = nnx.List(
            UpDecoderBlock2D(widths, channels[i], groups, add_upsample=i < last, **precision)
            for i, widths in enumerate(_block_widths(channels, config.layers_per_block + 1))
        )
        self.conv_norm_out = layers.GroupNorm(channels[-1], groups, eps=EPS, **precision)
        self.conv_out = layers.Conv(channels[-1], config.out_channels, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.conv_in, self.mid_block, *self.up_blocks):
            x = layer(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class AutoencoderKL(nnx.Module):
    """Pictures in [-1, 1] to latents and back. Latents here are unscaled: multiply by `config.scaling_factor` for the
    UNet, divide before decoding."""

    def __init__(
        self,
        config: VAEConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        latent = config.latent_channels
        self.config, self.dtype = config, dtype
        self.encoder = Encoder(config, **precision)
        self.decoder = Decoder(config, **precision)
        self.quant_conv = layers.PointwiseConv(2 * latent, 2 * latent, **precision) if config.use_quant_conv else None
        has_post = config.use_post_quant_conv
        self.post_quant_conv = layers.PointwiseConv(latent, latent, **precision) if has_post else None

    def encode(self, pixels: jax.Array) -> jax.Array:
        """`[B, H, W, in_channels]` to the moments `[B, h, w, 2 * latent_channels]`: mean, then log-variance."""
        moments = self.encoder(pixels)
        return moments if self.quant_conv is None else self.quant_conv(moments)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Unscaled latents `[B, h, w, latent_channels]` to pixels `[B, H, W, out_channels]`, not clipped."""
        return self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))


def sample_moments(moments: jax.Array, key: jax.Array) -> jax.Array:
    """Draws unscaled latents `[B, h, w, c]` from `moments` `[B, h, w, 2c]` (`DiagonalGaussianDistribution.sample`)."""
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    deviation = jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))
    return mean + deviation * jax.random.normal(key, mean.shape, mean.dtype)
