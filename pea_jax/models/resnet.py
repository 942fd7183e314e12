"""The convolutional pieces that UNet and VAE share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import layers


class ResnetBlock2D(nnx.Module):
    """Two normalised convolutions and a residual; the time embedding, if any, is added between them.

    `[B, H, W, in]` and `time_embedding` `[B, time_embed_dim]` or None to `[B, H, W, out]`
    (diffusers `ResnetBlock2D` with `time_embedding_norm="default"`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_embed_dim: int | None = None,
        num_groups: int,
        eps: float,
        **precision: Any,
    ):
        self.norm1 = layers.GroupNorm(in_channels, num_groups, eps=eps, **precision)
        self.conv1 = layers.Conv(in_channels, out_channels, **precision)
        self.time_emb_proj = layers.Linear(time_embed_dim, out_channels, **precision) if time_embed_dim else None
        self.norm2 = layers.GroupNorm(out_channels, num_groups, eps=eps, **precision)
        self.conv2 = layers.Conv(out_channels, out_channels, **precision)
        changes_width = in_channels != out_channels
        self.conv_shortcut = layers.PointwiseConv(in_channels, out_channels, **precision) if changes_width else None

    def __call__(self, x: jax.Array, time_embedding: jax.Array | None = None) -> jax.Array:
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        if self.time_emb_proj is not None and time_embedding is not None:
            y = y + self.time_emb_proj(jax.nn.silu(time_embedding))[:, None, None]
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        return (self.conv_shortcut(x) if self.conv_shortcut is not None else x) + y


class Downsample2D(nnx.Module):
    """Convolution of stride 2: `[B, H, W, C]` to `[B, ceil(H / 2), ceil(W / 2), C]` with the default padding."""

    def __init__(self, channels: int, *, padding: tuple[int, int] = (1, 1), **precision: Any):
        self.conv = layers.Conv(channels, channels, stride=2, padding=padding, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x)


class Upsample2D(nnx.Module):
    """Nearest-neighbour doubling, then a convolution: `[B, H, W, C]` to `[B, 2H, 2W, C]`.

    `size` (h, w), each 2H or 2H - 1, is the size that the mirrored `Downsample2D` was given; cropping the doubled
    picture is then what PyTorch's nearest interpolation to that size does.
    """

    def __init__(self, channels: int, **precision: Any):
        self.conv = layers.Conv(channels, channels, **precision)

    def __call__(self, x: jax.Array, size: tuple[int, ...] | None = None) -> jax.Array:
        batch, height, width, channels = x.shape
        h, w = size or (2 * height, 2 * width)
        # Columns, then rows: the gradient is then a sum of two slices each. That of a broadcast is a reduction, which
        # XLA's CPU backend merges into the convolution's and runs three times as slowly.
        x = jnp.concatenate([x, x], axis=3).reshape(batch, height, 2 * width * channels)
        x = jnp.concatenate([x, x], axis=2).reshape(batch, 2 * height, 2 * width, channels)
        return self.conv(x[:, :h, :w])
