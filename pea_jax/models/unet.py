"""The UNet of Stable Diffusion 1.5 and XL (diffusers `UNet2DConditionModel`), returning the features of every block."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models import layers
from pea_jax.models.resnet import ResnetBlock2D
from pea_jax.models.transformer_2d import Transformer2D
from pea_jax.models.unet_blocks import DownBlock2D, MidBlock2D, UpBlock2D
from pea_jax.models.unet_config import CROSS_ATTENTION, UNetConfig

__all__ = ["UNet2DCondition", "UNetConfig"]


class UNet2DCondition(nnx.Module):
    """Denoiser `(sample, timesteps, prompt_embeds, ...) -> (prediction, features)`."""

    def __init__(
        self,
        config: UNetConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        widths, embed_dim = config.block_out_channels, config.time_embedding_dim
        self.config, self.dtype = config, dtype
        self.conv_in = layers.Conv(config.in_channels, widths[0], **precision)
        self.time_embedding = layers.TimestepEmbedding(widths[0], embed_dim, **precision)
        added_dim = config.projection_class_embeddings_input_dim
        has_added = config.addition_embed_type == "text_time"
        self.add_embedding = layers.TimestepEmbedding(added_dim, embed_dim, **precision) if has_added else None
        skip_widths = self._build_down(precision)
        self.mid_block = self._build_mid(precision)
        self._build_up(skip_widths, precision)
        self.conv_norm_out = layers.GroupNorm(widths[0], config.norm_num_groups, eps=config.norm_eps, **precision)
        self.conv_out = layers.Conv(widths[0], config.out_channels, **precision)

    def _makers(self, block: int, has_attention: bool, precision: dict[str, Any]) -> dict[str, Any]:
        """The constructors that a block at depth `block` (counted from the input) takes."""
        config = self.config
        resnet = functools.partial(
            ResnetBlock2D,
            time_embed_dim=config.time_embedding_dim,
            num_groups=config.norm_num_groups,
            eps=config.norm_eps,
            **precision,
        )
        transformer = functools.partial(
            Transformer2D,
            num_heads=config.num_attention_heads[block],
            context_features=config.cross_attention_dim[block],
            num_groups=config.norm_num_groups,
            use_linear_projection=config.use_linear_projection,
            **precision,
        )
        return {"resnet": resnet, "transformer": transformer if has_attention else None}

    def _build_down(self, precision: dict[str, Any]) -> list[int]:
        """Returns the widths of the skip connections."""
        config, widths = self.config, self.config.block_out_channels
        blocks, skip_widths = [], [widths[0]]
        for i, block_type in enumerate(config.down_block_types):
            transformer_layers, is_last = config.down_transformer_layers[i], i == len(widths) - 1
            makers = self._makers(i, CROSS_ATTENTION[block_type], precision)
            before = widths[max(i - 1, 0)]
            blocks.append(
                DownBlock2D(before, widths[i], transformer_layers, add_downsample=not is_last, **makers, **precision)
            )
            skip_widths += [widths[i]] * (len(transformer_layers) + (not is_last))
        self.down_blocks = nnx.List(blocks)
        return skip_widths

    def _build_mid(self, precision: dict[str, Any]) -> MidBlock2D | None:
        config = self.config
        if config.mid_block_type is None:
            return None
        makers = self._makers(-1, True, precision)
        return MidBlock2D(config.block_out_channels[-1], config.mid_transformer_layers, **makers)

    def _build_up(self, skip_widths: list[int], precision: dict[str, Any]) -> None:
        config, widths = self.config, self.config.block_out_channels[::-1]
        blocks = []
        for i, block_type in enumerate(config.up_block_types):
            transformer_layers, is_last = config.up_transformer_layers[i], i == len(widths) - 1
            makers = self._makers(-1 - i, CROSS_ATTENTION[block_type], precision)
            skips = [skip_widths.pop() for _ in transformer_layers]
            before = widths[max(i - 1, 0)]
            blocks.append(
                UpBlock2D(before, widths[i], skips, transformer_layers, add_upsample=not is_last, **makers, **precision)
            )
        self.up_blocks = nnx.List(blocks)

    def __call__(
        self,
        sample: jax.Array,
        timesteps: jax.Array,
        prompt_embeds: jax.Array,
        *,
        text_embeds: jax.Array | None = None,
        time_ids: jax.Array | None = None,
        encoder_attention_mask: jax.Array | None = None,
        down_block_additional_residuals: Sequence[jax.Array] | None = None,
        mid_block_additional_residual: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Predicts the noise (or what the model was trained to predict).

        Args:
          sample: `[B, H, W, in_channels]`, any height and width.
          timesteps: `[B]`, integer or fractional.
          prompt_embeds: `[B, L, cross_attention_dim]`.
          text_embeds: pooled prompt embeddings `[B, P]`; read by models with `text_time` conditioning only.
          time_ids: `[B, 6]`, original size, crop and target size; likewise.
          encoder_attention_mask: `[B, L]`, False or 0 hides a token.
          down_block_additional_residuals: a ControlNet's, one for each skip connection.
          mid_block_additional_residual: a ControlNet's.

        Returns:
          The prediction `[B, H, W, out_channels]`, and the hidden states `down_i` after each down block and its
          downsampler, `mid` after the mid block (before a ControlNet's residual), `up_i` after each up block and its
          upsampler.

        Raises:
          PeaError: if a `text_time` model lacks `text_embeds` or `time_ids`.
        """
        embedding = self._embed(timesteps, text_embeds, time_ids)
        mask = None if encoder_attention_mask is None else encoder_attention_mask.astype(bool)[:, None, None]
        conditioning = (embedding, prompt_embeds.astype(self.dtype), mask)
        features = {}
        x = self.conv_in(sample)
        skips = [x]
        for i, down_block in enumerate(self.down_blocks):
            x, block_skips = down_block(x, *conditioning)
            skips += block_skips
            features[f"down_{i}"] = x
        if down_block_additional_residuals is not None:
            skips = [a + b for a, b in zip(skips, down_block_additional_residuals, strict=True)]
        if self.mid_block is not None:
            x = features["mid"] = self.mid_block(x, *conditioning)
        if mid_block_additional_residual is not None:
            x = x + mid_block_additional_residual
        for i, up_block in enumerate(self.up_blocks):
            block_skips = [skips.pop() for _ in up_block.resnets]
            size = skips[-1].shape[1:3] if skips else None
            x = features[f"up_{i}"] = up_block(x, block_skips, *conditioning, size)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x))), features

    def _embed(self, timesteps: jax.Array, text_embeds: jax.Array | None, time_ids: jax.Array | None) -> jax.Array:
        """Timestep and added conditioning, `[B, time_embedding_dim]`."""
        config = self.config
        sinusoids = functools.partial(
            layers.timestep_embedding, flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift
        )
        embedding = self.time_embedding(sinusoids(timesteps, config.block_out_channels[0]).astype(self.dtype))
        if self.add_embedding is None:
            return embedding
        if text_embeds is None or time_ids is None:
            raise PeaError("this UNet has addition_embed_type 'text_time': pass text_embeds and time_ids")
        added = sinusoids(time_ids.reshape(-1), config.addition_time_embed_dim).reshape(len(text_embeds), -1)
        added = jnp.concatenate([text_embeds.astype(self.dtype), added.astype(self.dtype)], axis=-1)
        return embedding + self.add_embedding(added)
