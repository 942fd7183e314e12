"""A plain ViT (Dosovitskiy et al. 2020, arXiv 2010.11929): the picture encoder of BLIP and of rinna's CLIP and CLOOB.

It differs from CLIP's own in a bias on the patches and in no norm before the first layer.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import layers
from pea_jax.models.clip_text import CLIPEncoder
from pea_jax.models.clip_vision import PASSED_OVER, SUPPORTED, CLIPVisionConfig, CLIPVisionEmbeddings


@dataclasses.dataclass(frozen=True)
class ViTConfig(CLIPVisionConfig):
    """The fields of `ViTConfig` in transformers that shape the network; the defaults are those there."""

    supported: ClassVar[Mapping[str, tuple]] = {**SUPPORTED, "model_type": ("vit",), "qkv_bias": (True,)}
    passed_over: ClassVar[frozenset[str]] = PASSED_OVER | {
        "attention_probs_dropout_prob",
        "encoder_stride",
        "hidden_dropout_prob",
        "pooler_act",
        "pooler_output_size",
    }

    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    patch_size: int = 16


class ViT(nnx.Module):
    """`[B, image_size, image_size, 3]` to `[B, 1 + N, D]`, normalised at the end."""

    def __init__(self, config: CLIPVisionConfig, **precision: Any):
        self.embeddings = CLIPVisionEmbeddings(config, use_bias=True, **precision)
        self.encoder = CLIPEncoder(config, **precision)
        self.post_layernorm = layers.layer_norm(config.hidden_size, eps=config.layer_norm_eps, **precision)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        return self.post_layernorm(self.encoder(self.embeddings(pixels), None)[-1])


class ViTWithProjection(nnx.Module):
    """`pixels -> (last_hidden_state, features)`, as `clip_vision.CLIPVision`; its first state is projected."""

    def __init__(
        self,
        config: ViTConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
    ):
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        self.config = config
        self.vision_model = ViT(config, **precision)
        self.visual_projection = layers.Linear(config.hidden_size, config.projection_dim, use_bias=False, **precision)

    def __call__(self, pixels: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        """Encodes pictures.

        Args:
          pixels: `[B, image_size, image_size, 3]`, normalised as the model wants them (`judging.published_pixels`).

        Returns:
          `last_hidden_state` `[B, 1 + N, D]`, normalised at the end, and a dict: `pooled` `[B, D]`, the first of these
          states; `image_embeds` `[B, P]`, its projection.
        """
        last = self.vision_model(pixels)
        return last, dict(pooled=last[:, 0], image_embeds=self.visual_projection(last[:, 0]))
