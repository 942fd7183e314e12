"""ControlNet: a picture that guides the UNet (diffusers `ControlNetModel`; Zhang et al., arXiv 2302.05543)."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models import layers
from pea_jax.models.calls import DIRECT, Calls
from pea_jax.models.controlnet_config import ControlNetConfig
from pea_jax.models.unet_encoder import UNetEncoder

__all__ = ["ControlNet", "ControlNetConfig"]


class ControlNetConditioningEmbedding(nnx.Module):
    """Convolutions from the guiding picture `[B, H, W, in]` to the size of the latents, `[B, h, w, out]`; between two
    of `widths` the picture is halved."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], out_channels: int, **precision: Any):
        self.conv_in = layers.Conv(in_channels, widths[0], **precision)
        self.blocks = nnx.List(
            layers.Conv(before, after, stride=stride, **precision)
            for narrow, wide in itertools.pairwise(widths)
            for before, after, stride in ((narrow, narrow, 1), (narrow, wide, 2))
        )
        self.conv_out = layers.Conv(widths[-1], out_channels, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in (self.conv_in, *self.blocks):
            x = jax.nn.silu(conv(x))
        return self.conv_out(x)


class ControlNet(UNetEncoder):
    """A copy of the UNet's first half, whose skip connections and mid state are added to the UNet's own."""

    config: ControlNetConfig

    def __init__(
        self,
        config: ControlNetConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        super().__init__(config, dtype=dtype, param_dtype=param_dtype)
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        widths = config.block_out_channels
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            config.conditioning_channels, config.conditioning_embedding_out_channels, widths[0], **precision
        )
        self.controlnet_down_blocks = nnx.List(
            layers.PointwiseConv(width, width, **precision) for width in config.skip_channels
        )
        self.controlnet_mid_block = layers.PointwiseConv(widths[-1], widths[-1], **precision)

    def __call__(
        self,
        sample: jax.Array,
        timesteps: jax.Array,
        prompt_embeds: jax.Array,
        controlnet_cond: jax.Array,
        *,
        conditioning_scale: jax.typing.ArrayLike = 1.0,
        text_embeds: jax.Array | None = None,
        time_ids: jax.Array | None = None,
        calls: Calls = DIRECT,
    ) -> tuple[list[jax.Array], jax.Array]:
        """What the UNet takes as `down_block_additional_residuals` and `mid_block_additional_residual`.

        Args:
          sample, timesteps, prompt_embeds, text_embeds, time_ids, calls: as for the UNet.
          controlnet_cond: `[B, 8H, 8W, 3]` in [0, 1], where the sample is `[B, H, W, in_channels]`: edges, depth, a
            pose, as this ControlNet was trained.
          conditioning_scale: factor of all residuals; a number.

        Returns:
          A residual for each skip connection of the UNet, and one for its mid state. They are `[B, 1, 1, C]` if the
          config says `global_pool_conditions`.

        Raises:
          PeaError: picture and sample do not fit in size, or a `text_time` model lacks `text_embeds` or `time_ids`.
        """
        if self.config.controlnet_conditioning_channel_order == "bgr":
            controlnet_cond = controlnet_cond[..., ::-1]
        guide = self.controlnet_cond_embedding(controlnet_cond)
        if guide.shape[1:3] != sample.shape[1:3]:
            times = 2 ** (len(self.config.conditioning_embedding_out_channels) - 1)
            picture, latents = controlnet_cond.shape[1:3], sample.shape[1:3]
            raise PeaError(f"controlnet_cond is {picture}, must be {times} times the sample's {latents}")
        embeddings = self.embed(timesteps, prompt_embeds, text_embeds, time_ids, calls=calls)
        x, skips, _ = self.encode(calls.layer(self.conv_in, sample) + guide, embeddings, calls)
        down = [calls.layer(conv, skip) for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        scale = jnp.asarray(conditioning_scale, self.dtype)
        residuals = [residual * scale for residual in (*down, calls.layer(self.controlnet_mid_block, x))]
        if self.config.global_pool_conditions:
            residuals = [residual.mean((1, 2), keepdims=True) for residual in residuals]
        return residuals[:-1], residuals[-1]
