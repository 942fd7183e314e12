"""The half that UNet and ControlNet share: embeddings, the way down and the middle."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models import layers
from pea_jax.models.calls import DIRECT, Calls
from pea_jax.models.resnet import ResnetBlock2D
from pea_jax.models.transformer_2d import Transformer2D
from pea_jax.models.unet_blocks import DownBlock2D, MidBlock2D
from pea_jax.models.unet_encoder_config import CROSS_ATTENTION, CROSS_ATTENTION_MID, UNetEncoderConfig

# Time embedding `[B, time_embedding_dim]`, prompt embeddings `[B, L, cross_attention_dim]`, mask `[B, 1, 1, L]`.
Embeddings = tuple[jax.Array, jax.Array, jax.Array | None]


class UNetEncoder(nnx.Module):
    """What `UNet2DCondition` and `ControlNet` begin with."""

    config: UNetEncoderConfig

    def __init__(self, config: UNetEncoderConfig, *, dtype: jax.typing.DTypeLike, param_dtype: jax.typing.DTypeLike):
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        widths, embed_dim = config.block_out_channels, config.time_embedding_dim
        self.config, self.dtype = config, dtype
        self.conv_in = layers.Conv(config.in_channels, widths[0], **precision)
        self.time_embedding = layers.TimestepEmbedding(widths[0], embed_dim, **precision)
        added_dim, has_added = config.projection_class_embeddings_input_dim, config.addition_embed_type == "text_time"
        self.add_embedding = layers.TimestepEmbedding(added_dim, embed_dim, **precision) if has_added else None
        prompt_dim, context_dim = config.encoder_hid_dim, config.cross_attention_dim[0]
        self.encoder_hid_proj = layers.Linear(prompt_dim, context_dim, **precision) if prompt_dim else None
        self.down_blocks = nnx.List(self._down_block(i, precision) for i in range(len(widths)))
        self.mid_block = self._mid_block(precision)

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

    def _down_block(self, i: int, precision: dict[str, Any]) -> DownBlock2D:
        config, widths = self.config, self.config.block_out_channels
        makers = self._makers(i, CROSS_ATTENTION[config.down_block_types[i]], precision)
        before, is_last = widths[max(i - 1, 0)], i == len(widths) - 1
        transformer_layers = config.down_transformer_layers[i]
        return DownBlock2D(before, widths[i], transformer_layers, add_downsample=not is_last, **makers, **precision)

    def _mid_block(self, precision: dict[str, Any]) -> MidBlock2D | None:
        config = self.config
        if config.mid_block_type is None:
            return None
        makers = self._makers(-1, config.mid_block_type == CROSS_ATTENTION_MID, precision)
        return MidBlock2D(config.block_out_channels[-1], config.mid_transformer_layers, **makers)

    def embed(
        self,
        timesteps: jax.Array,
        prompt_embeds: jax.Array,
        text_embeds: jax.Array | None,
        time_ids: jax.Array | None,
        mask: jax.Array | None = None,
        timestep_cond: jax.Array | None = None,
        calls: Calls = DIRECT,
    ) -> Embeddings:
        """What every block is told, from the arguments of `UNet2DCondition.__call__`."""
        prompt_embeds = prompt_embeds.astype(self.dtype)
        if self.encoder_hid_proj is not None:
            prompt_embeds = calls.layer(self.encoder_hid_proj, prompt_embeds)
        mask = None if mask is None else mask.astype(bool)[:, None, None]
        return self._time_embedding(timesteps, text_embeds, time_ids, timestep_cond, calls), prompt_embeds, mask

    def encode(
        self, x: jax.Array, embeddings: Embeddings, calls: Calls = DIRECT
    ) -> tuple[jax.Array, list[jax.Array], dict[str, jax.Array]]:
        """From the output of `conv_in` to the hidden state after the middle, the skip connections (`x` the first) and
        the features `down_i` and `mid`."""
        skips, features = [x], {}
        for i, down_block in enumerate(self.down_blocks):
            x, block_skips = calls.block(down_block, x, *embeddings, calls=calls)
            skips += block_skips
            features[f"down_{i}"] = x
        if self.mid_block is not None:
            x = features["mid"] = calls.block(self.mid_block, x, *embeddings, calls=calls)
        return x, skips, features

    def _time_embedding(
        self,
        timesteps: jax.Array,
        text_embeds: jax.Array | None,
        time_ids: jax.Array | None,
        timestep_cond: jax.Array | None,
        calls: Calls,
    ) -> jax.Array:
        """Timestep and added conditioning, `[B, time_embedding_dim]`."""
        config = self.config
        sinusoids = functools.partial(
            layers.timestep_embedding, flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift
        )
        waves = sinusoids(timesteps, config.block_out_channels[0]).astype(self.dtype)
        told = () if timestep_cond is None else (timestep_cond.astype(self.dtype),)
        embedding = calls.layer(self.time_embedding, waves, *told)
        if self.add_embedding is None:
            return embedding
        if text_embeds is None or time_ids is None:
            raise PeaError("this model has addition_embed_type 'text_time': pass text_embeds and time_ids")
        added = sinusoids(time_ids.reshape(-1), config.addition_time_embed_dim).reshape(len(text_embeds), -1)
        added = jnp.concatenate([text_embeds.astype(self.dtype), added.astype(self.dtype)], axis=-1)
        return embedding + calls.layer(self.add_embedding, added)
