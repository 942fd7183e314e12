"""ImageReward's network (Xu et al. 2023, arXiv 2304.05977): BLIP's ViT, a BERT that looks at its states, and a head."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import calls, layers
from pea_jax.models.bert import BertAttention, BertConfig, BertIntermediate, BertOutput
from pea_jax.models.clip_vision import CLIPVisionConfig
from pea_jax.models.vit import ViT

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the head's output in its training, from the published code


@dataclasses.dataclass(frozen=True)
class ImageRewardConfig:
    """The defaults are the published network: ViT-L/16 at 224 pixels, BERT base with two tokens of BLIP's more."""

    vision: CLIPVisionConfig = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_attention_heads=16,
        num_hidden_layers=24,
        patch_size=16,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
    text: BertConfig = BertConfig(vocab_size=30524)
    head: tuple[int, ...] = (1024, 128, 64, 16, 1)


class BlipTextEmbeddings(nnx.Module):
    """Words and positions, normalised; BERT's without types of tokens."""

    def __init__(self, config: BertConfig, **precision: Any):
        self.word_embeddings = layers.embedding(config.vocab_size, config.hidden_size, **precision)
        self.position_embeddings = layers.embedding(config.max_position_embeddings, config.hidden_size, **precision)
        self.LayerNorm = layers.layer_norm(config.hidden_size, eps=config.layer_norm_eps, **precision)

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        positions = jnp.arange(input_ids.shape[1])[None]
        return self.LayerNorm(self.word_embeddings(input_ids) + self.position_embeddings(positions))


class BlipTextLayer(nnx.Module):
    """BERT's layer, with attention to the picture in the middle."""

    def __init__(self, config: BertConfig, picture_width: int, **precision: Any):
        self.attention = BertAttention(config, **precision)
        self.crossattention = BertAttention(config, picture_width, **precision)
        self.intermediate = BertIntermediate(config, **precision)
        self.output = BertOutput(config.intermediate_size, config, **precision)

    def __call__(self, x: jax.Array, mask: jax.Array, picture: jax.Array) -> jax.Array:
        x = self.crossattention(self.attention(x, mask), None, picture)
        return self.output(self.intermediate(x), x)


class BlipTextEncoder(nnx.Module):
    """The stack of layers."""

    def __init__(self, config: BertConfig, picture_width: int, **precision: Any):
        self.layer = nnx.List(
            BlipTextLayer(config, picture_width, **precision) for _ in range(config.num_hidden_layers)
        )

    def __call__(self, x: jax.Array, mask: jax.Array, picture: jax.Array) -> jax.Array:
        for layer in self.layer:
            x = calls.traced_once(layer, x, mask, picture)
        return x


class BlipText(nnx.Module):
    """`[B, L]` tokens and `[B, N, P]` states of pictures to `[B, L, D]`."""

    def __init__(self, config: BertConfig, picture_width: int, **precision: Any):
        self.embeddings = BlipTextEmbeddings(config, **precision)
        self.encoder = BlipTextEncoder(config, picture_width, **precision)

    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array, picture: jax.Array) -> jax.Array:
        return self.encoder(self.embeddings(input_ids), attention_mask[:, None, None, :] != 0, picture)


class ImageReward(nnx.Module):
    """`(pixels, input_ids, attention_mask) -> rewards`."""

    def __init__(
        self,
        config: ImageRewardConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
    ):
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        self.config = config
        self.visual_encoder = ViT(config.vision, **precision)
        self.text_encoder = BlipText(config.text, config.vision.hidden_size, **precision)
        widths = zip((config.text.hidden_size, *config.head[:-1]), config.head, strict=True)
        self.mlp = nnx.List(layers.Linear(before, after, **precision) for before, after in widths)

    def __call__(self, pixels: jax.Array, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """How people would like each picture for its text.

        Args:
          pixels: `[B, image_size, image_size, 3]`, normalised as for OpenAI's CLIP.
          input_ids, attention_mask: `[B, L]`; the mask is 0 at padding.

        Returns:
          `[B]` float32; 0 is the mean of the pictures it was trained on, 1 a standard deviation above.
        """
        x = self.text_encoder(input_ids, attention_mask, self.visual_encoder(pixels))[:, 0]
        for linear in self.mlp:  # nothing between them, as published
            x = linear(x)
        return (x[:, 0].astype(jnp.float32) - MEAN) / STD
