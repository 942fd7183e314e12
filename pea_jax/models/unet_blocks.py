"""The blocks of the UNet. One class serves diffusers' block with and without cross-attention.

`resnet(in_channels, out_channels)` and `transformer(channels, num_layers)` build the layers of a block, so that it
need not know what they are made of; `calls` says how they are called.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models.calls import DIRECT, Calls
from pea_jax.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from pea_jax.models.transformer_2d import Transformer2D

MakeResnet = Callable[[int, int], ResnetBlock2D]
MakeTransformer = Callable[[int, int], Transformer2D]


def _transformers(make: MakeTransformer | None, channels: int, layers: Sequence[int]) -> nnx.List:
    return nnx.List([make(channels, num_layers) for num_layers in layers] if make else [None] * len(layers))


class DownBlock2D(nnx.Module):
    """`DownBlock2D` and `CrossAttnDownBlock2D`.

    `transformer_layers` holds one number for each resnet; the numbers are unused where `transformer` is None.
    Returns the hidden state and the list of skip connections, of which the hidden state is the last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        transformer_layers: Sequence[int],
        *,
        resnet: MakeResnet,
        transformer: MakeTransformer | None,
        add_downsample: bool,
        **precision: Any,
    ):
        widths = [in_channels, *[out_channels] * (len(transformer_layers) - 1)]
        self.resnets = nnx.List(resnet(width, out_channels) for width in widths)
        self.attentions = _transformers(transformer, out_channels, transformer_layers)
        self.downsamplers = nnx.List([Downsample2D(out_channels, **precision)] if add_downsample else [])

    def __call__(
        self,
        x: jax.Array,
        time_embedding: jax.Array,
        context: jax.Array,
        mask: jax.Array | None,
        *,
        calls: Calls = DIRECT,
    ) -> tuple[jax.Array, list[jax.Array]]:
        skips = []
        for resnet, transformer in zip(self.resnets, self.attentions, strict=True):
            x = calls.layer(resnet, x, time_embedding)
            x = x if transformer is None else transformer(x, context, mask, calls=calls)
            skips.append(x)
        for downsample in self.downsamplers:
            x = calls.layer(downsample, x)
            skips.append(x)
        return x, skips


class MidBlock2D(nnx.Module):
    """`UNetMidBlock2DCrossAttn`: a resnet, a transformer, a resnet; `UNetMidBlock2D`: where `transformer` is None, the
    first resnet alone."""

    def __init__(
        self, channels: int, transformer_layers: int, *, resnet: MakeResnet, transformer: MakeTransformer | None
    ):
        self.attentions = nnx.List([transformer(channels, transformer_layers)] if transformer else [])
        self.resnets = nnx.List(resnet(channels, channels) for _ in range(1 + len(self.attentions)))

    def __call__(
        self,
        x: jax.Array,
        time_embedding: jax.Array,
        context: jax.Array,
        mask: jax.Array | None,
        *,
        calls: Calls = DIRECT,
    ) -> jax.Array:
        x = calls.layer(self.resnets[0], x, time_embedding)
        for transformer, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            x = calls.layer(resnet, transformer(x, context, mask, calls=calls), time_embedding)
        return x


class UpBlock2D(nnx.Module):
    """`UpBlock2D` and `CrossAttnUpBlock2D`.

    `skip_channels` holds the widths of the skip connections in the order in which they are used, `transformer_layers`
    one number for each. `size` (height, width) is what the upsampler returns.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        skip_channels: Sequence[int],
        transformer_layers: Sequence[int],
        *,
        resnet: MakeResnet,
        transformer: MakeTransformer | None,
        add_upsample: bool,
        **precision: Any,
    ):
        widths = [in_channels, *[out_channels] * (len(skip_channels) - 1)]
        self.resnets = nnx.List(
            resnet(width + skip, out_channels) for width, skip in zip(widths, skip_channels, strict=True)
        )
        self.attentions = _transformers(transformer, out_channels, transformer_layers)
        self.upsamplers = nnx.List([Upsample2D(out_channels, **precision)] if add_upsample else [])

    def __call__(
        self,
        x: jax.Array,
        skips: Sequence[jax.Array],
        time_embedding: jax.Array,
        context: jax.Array,
        mask: jax.Array | None,
        *,
        size: tuple[int, ...] | None,
        calls: Calls = DIRECT,
    ) -> jax.Array:
        for resnet, transformer, skip in zip(self.resnets, self.attentions, skips, strict=True):
            x = calls.layer(resnet, jnp.concatenate([x, skip], axis=-1), time_embedding)
            x = x if transformer is None else transformer(x, context, mask, calls=calls)
        for upsample in self.upsamplers:
            x = calls.layer(upsample, x, size=size)
        return x
