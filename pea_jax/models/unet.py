"""The UNet of Stable Diffusion and its relatives (diffusers `UNet2DConditionModel`), with the features of every
block."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import layers
from pea_jax.models.calls import DIRECT, Calls
from pea_jax.models.unet_blocks import UpBlock2D
from pea_jax.models.unet_config import UNetConfig
from pea_jax.models.unet_encoder import UNetEncoder
from pea_jax.models.unet_encoder_config import CROSS_ATTENTION

__all__ = ["UNet2DCondition", "UNetConfig"]


class UNet2DCondition(UNetEncoder):
    """Denoiser `(sample, timesteps, prompt_embeds, ...) -> (prediction, features)`."""

    config: UNetConfig

    def __init__(
        self,
        config: UNetConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        super().__init__(config, dtype=dtype, param_dtype=param_dtype)
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        width, skip_channels = config.block_out_channels[0], config.skip_channels
        self.time_embedding = layers.TimestepEmbedding(
            width, config.time_embedding_dim, cond_features=config.time_cond_proj_dim, **precision
        )
        self.up_blocks = nnx.List(
            self._up_block(i, skip_channels, precision) for i in range(len(config.up_block_types))
        )
        self.conv_norm_out = layers.GroupNorm(width, config.norm_num_groups, eps=config.norm_eps, **precision)
        self.conv_out = layers.Conv(width, config.out_channels, **precision)

    def _up_block(self, i: int, skip_channels: list[int], precision: dict[str, Any]) -> UpBlock2D:
        """Takes what it needs from the end of `skip_channels`."""
        config, widths = self.config, self.config.block_out_channels[::-1]
        makers = self._makers(-1 - i, CROSS_ATTENTION[config.up_block_types[i]], precision)
        transformer_layers, is_last = config.up_transformer_layers[i], i == len(widths) - 1
        skips = [skip_channels.pop() for _ in transformer_layers]
        before = widths[max(i - 1, 0)]
        return UpBlock2D(before, widths[i], skips, transformer_layers, add_upsample=not is_last, **makers, **precision)

    def __call__(
        self,
        sample: jax.Array,
        timesteps: jax.Array,
        prompt_embeds: jax.Array,
        *,
        text_embeds: jax.Array | None = None,
        time_ids: jax.Array | None = None,
        encoder_attention_mask: jax.Array | None = None,
        timestep_cond: jax.Array | None = None,
        down_block_additional_residuals: Sequence[jax.Array] | None = None,
        mid_block_additional_residual: jax.Array | None = None,
        calls: Calls = DIRECT,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Predicts the noise (or what the model was trained to predict).

        Args:
          sample: `[B, H, W, in_channels]`, any height and width.
          timesteps: `[B]`, integer or fractional.
          prompt_embeds: `[B, L, config.prompt_embed_dim]`.
          text_embeds: pooled prompt embeddings `[B, P]`; read by models with `text_time` conditioning only.
          time_ids: `[B, 6]`, original size, crop and target size; likewise.
          encoder_attention_mask: `[B, L]`, False or 0 hides a token.
          timestep_cond: `[B, config.time_cond_proj_dim]`, the guidance scale, for models that are told it.
          down_block_additional_residuals: a ControlNet's, one for each skip connection.
          mid_block_additional_residual: a ControlNet's.
          calls: how layers and blocks are called, where the parameters are split or memory is short.

        Returns:
          The prediction `[B, H, W, out_channels]`, and the hidden states `down_i` after each down block and its
          downsampler, `mid` after the mid block (before a ControlNet's residual), `up_i` after each up block and its
          upsampler.

        Raises:
          PeaError: if a `text_time` model lacks `text_embeds` or `time_ids`.
        """
        embeddings = self.embed(
            timesteps, prompt_embeds, text_embeds, time_ids, encoder_attention_mask, timestep_cond, calls
        )
        x, skips, features = self.encode(calls.layer(self.conv_in, sample), embeddings, calls)
        if down_block_additional_residuals is not None:
            skips = [a + b for a, b in zip(skips, down_block_additional_residuals, strict=True)]
        if mid_block_additional_residual is not None:
            x = x + mid_block_additional_residual
        for i, up_block in enumerate(self.up_blocks):
            block_skips = [skips.pop() for _ in up_block.resnets]
            size = skips[-1].shape[1:3] if skips else None
            x = features[f"up_{i}"] = calls.block(up_block, x, block_skips, *embeddings, size=size, calls=calls)
        return calls.layer(self.conv_out, jax.nn.silu(calls.layer(self.conv_norm_out, x))), features
