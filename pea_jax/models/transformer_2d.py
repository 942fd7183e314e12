"""Spatial transformer of the UNet (diffusers `Transformer2DModel` on continuous input)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import layers
from pea_jax.models.attention import attention
from pea_jax.models.calls import DIRECT, Calls


class Attention(nnx.Module):
    """Multi-head attention of `[B, T, features]` to a context `[B, S, context_features]`, by default to itself.

    Query, key and value have a bias only in the VAE.
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        *,
        context_features: int | None = None,
        qkv_bias: bool = False,
        **precision: Any,
    ):
        context_features = context_features or features
        self.to_q = layers.Linear(features, features, use_bias=qkv_bias, **precision)
        self.to_k = layers.Linear(context_features, features, use_bias=qkv_bias, **precision)
        self.to_v = layers.Linear(context_features, features, use_bias=qkv_bias, **precision)
        self.to_out = nnx.List([layers.Linear(features, features, **precision)])
        self.num_heads = num_heads

    def __call__(self, x: jax.Array, context: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        context = x if context is None else context
        query, key, value = (self._heads(y) for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        y = attention(query, key, value, mask)
        return self.to_out[0](y.reshape(*x.shape[:2], -1))

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.num_heads, -1)


class GEGLU(nnx.Module):
    """Linear layer of twice the width, one half gating the other through the exact (erf) GELU."""

    def __init__(self, in_features: int, out_features: int, **precision: Any):
        self.proj = layers.Linear(in_features, 2 * out_features, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        # As PyTorch writes it; `jax.nn.gelu` goes through erfc, which takes twice as long.
        return value * gate * (0.5 + 0.5 * jax.lax.erf(gate * math.sqrt(0.5)))


class FeedForward(nnx.Module):
    """GEGLU and a linear layer, inner width 4 times `features`."""

    def __init__(self, features: int, **precision: Any):
        # Index 1 is PyTorch's dropout, which holds no weights.
        net = [GEGLU(features, 4 * features, **precision), None, layers.Linear(4 * features, features, **precision)]
        self.net: Any = nnx.List(net)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.net[2](self.net[0](x))


class BasicTransformerBlock(nnx.Module):
    """Self-attention, cross-attention and feed-forward, each behind a LayerNorm and with a residual."""

    def __init__(self, features: int, num_heads: int, *, context_features: int, **precision: Any):
        self.norm1 = layers.layer_norm(features, **precision)
        self.attn1 = Attention(features, num_heads, **precision)
        self.norm2 = layers.layer_norm(features, **precision)
        self.attn2 = Attention(features, num_heads, context_features=context_features, **precision)
        self.norm3 = layers.layer_norm(features, **precision)
        self.ff = FeedForward(features, **precision)

    def __call__(self, x: jax.Array, context: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context, mask)
        return x + self.ff(self.norm3(x))


class Transformer2D(nnx.Module):
    """`num_layers` transformer blocks over the pixels of `[B, H, W, C]`, projected in and out, with a residual.

    `context` is `[B, L, context_features]`, `mask` boolean and broadcastable to `[B, heads, H * W, L]`. The heads
    share `C // num_heads` channels each, rounded down.
    """

    def __init__(
        self,
        channels: int,
        num_layers: int,
        *,
        num_heads: int,
        context_features: int,
        num_groups: int,
        use_linear_projection: bool,
        **precision: Any,
    ):
        inner = channels // num_heads * num_heads
        # Not the UNet's norm_eps: PyTorch fixes 1e-6 here.
        self.norm = layers.GroupNorm(channels, num_groups, eps=1e-6, **precision)
        projection = layers.Linear if use_linear_projection else layers.PointwiseConv
        self.proj_in = projection(channels, inner, **precision)
        blocks = layers.alike(
            num_layers,
            lambda: BasicTransformerBlock(inner, num_heads, context_features=context_features, **precision),
        )
        self.transformer_blocks = nnx.List(blocks)
        self.proj_out = projection(inner, channels, **precision)

    def __call__(
        self, x: jax.Array, context: jax.Array, mask: jax.Array | None = None, *, calls: Calls = DIRECT
    ) -> jax.Array:
        batch, height, width, channels = x.shape
        y = calls.layer(self.norm, x).reshape(batch, height * width, channels)
        y = calls.layer(self.proj_in, y)
        for block in self.transformer_blocks:
            y = calls.layer(block, y, context, mask)
        return x + calls.layer(self.proj_out, y).reshape(x.shape)
