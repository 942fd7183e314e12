"""CLIP's picture encoder, a ViT: of OpenAI's CLIP, OpenCLIP, Chinese-CLIP, ruCLIP, AltCLIP and MetaCLIP 2."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models import layers
from pea_jax.models.clip_text import ACTIVATIONS, CLIPEncoder, CLIPEncoderConfig
from pea_jax.models.config_fields import check_choice, check_heads, check_kinds, read_fields

# What a vision_config may say beside the shape of the network: it is accepted at these values alone.
SUPPORTED: Mapping[str, tuple] = {
    "num_channels": (3,),
    "add_cross_attention": (False,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
    "model_type": (
        "clip_vision_model", "chinese_clip_vision_model", "altclip_vision_model", "metaclip_2_vision_model",
        "clip",
    ),
}  # fmt: skip
# What configs hold that transformers wrote: training, generation of text, bookkeeping.
PASSED_OVER = frozenset(
    [
        "architectures",
        "attention_dropout",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dropout",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "initializer_factor",
        "initializer_range",
        "label2id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "pad_token_id",
        "prefix",
        "problem_type",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tie_word_embeddings",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "typical_p",
        "use_bfloat16",
    ]
)


@dataclasses.dataclass(frozen=True)
class CLIPVisionConfig(CLIPEncoderConfig):
    """The fields of a `vision_config` that shape the network; the defaults are those of transformers."""

    supported: ClassVar[Mapping[str, tuple]] = SUPPORTED
    passed_over: ClassVar[frozenset[str]] = PASSED_OVER

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """From the `vision_config` of a transformers `config.json`, with the `projection_dim` of the whole model.

        Raises:
          PeaError: naming every field that is not known, and any that the network cannot have.
        """
        known = {name: value for name, value in config.items() if name not in cls.passed_over}
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        fields = read_fields(known, defaults=defaults, supported=cls.supported)
        check_kinds(fields, defaults)
        check_choice("hidden_act", [fields["hidden_act"]], tuple(ACTIVATIONS))
        check_heads(fields)
        result = cls(**fields)
        if result.image_size < result.patch_size:
            raise PeaError(f"patch_size={result.patch_size} is larger than image_size={result.image_size}")
        return result


class PatchEmbedding(nnx.Module):
    """Each patch by one matrix, `[B, H, W, 3]` to `[B, N, D]`: `torch.nn.Conv2d` whose stride is its kernel.

    What is left at the right and lower edge is not looked at.
    """

    def __init__(
        self,
        config: CLIPVisionConfig,
        *,
        use_bias: bool = False,
        dtype: jax.typing.DTypeLike,
        param_dtype: jax.typing.DTypeLike,
    ):
        side = config.patch_size
        self.kernel = nnx.Param(layers.constant((side, side, 3, config.hidden_size), param_dtype))
        self.bias = nnx.Param(layers.constant((config.hidden_size,), param_dtype)) if use_bias else None
        self.side, self.dtype = side, dtype

    def __call__(self, pixels: jax.Array) -> jax.Array:
        side, (batch, height, width, channels) = self.side, pixels.shape
        rows, columns = height // side, width // side
        patches = pixels[:, : rows * side, : columns * side].reshape(batch, rows, side, columns, side, channels)
        patches = patches.swapaxes(2, 3).reshape(batch, rows * columns, -1)
        kernel = self.kernel[...].astype(self.dtype)
        embedded = patches.astype(self.dtype) @ kernel.reshape(-1, kernel.shape[-1])
        return embedded if self.bias is None else embedded + self.bias[...].astype(self.dtype)[None, None]


class CLIPVisionEmbeddings(nnx.Module):
    """`[B, H, W, 3]` to `[B, 1 + N, D]`: one state for the whole picture, then one a patch."""

    def __init__(self, config: CLIPVisionConfig, *, use_bias: bool = False, **precision: Any):
        count = (config.image_size // config.patch_size) ** 2
        self.class_embedding = nnx.Param(layers.constant((config.hidden_size,), precision["param_dtype"]))
        self.patch_embedding = PatchEmbedding(config, use_bias=use_bias, **precision)
        self.position_embedding = layers.embedding(count + 1, config.hidden_size, **precision)
        self.image_size = config.image_size

    def __call__(self, pixels: jax.Array) -> jax.Array:
        if pixels.shape[1:] != (self.image_size, self.image_size, 3):
            size = self.image_size
            raise PeaError(f"pictures {pixels.shape[1:]} must be {(size, size, 3)}, as this encoder was trained on")
        patches = self.patch_embedding(pixels)
        first = self.class_embedding[...].astype(patches.dtype)
        first = jnp.broadcast_to(first, (patches.shape[0], 1, first.shape[0]))
        positions = jnp.arange(self.position_embedding.num_embeddings)[None]
        return jnp.concatenate([first, patches], axis=1) + self.position_embedding(positions)


class CLIPVision(nnx.Module):
    """`pixels -> (last_hidden_state, features)`."""

    def __init__(
        self,
        config: CLIPVisionConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        norm: dict[str, Any] = dict(eps=config.layer_norm_eps, **precision)
        self.config = config
        self.embeddings = CLIPVisionEmbeddings(config, **precision)
        self.pre_layrnorm = layers.layer_norm(config.hidden_size, **norm)  # so spelt in the files
        self.encoder = CLIPEncoder(config, **precision)
        self.post_layernorm = layers.layer_norm(config.hidden_size, **norm)
        self.visual_projection = layers.Linear(config.hidden_size, config.projection_dim, use_bias=False, **precision)

    def __call__(self, pixels: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        """Encodes pictures.

        Args:
          pixels: `[B, image_size, image_size, 3]`, normalised as the model wants them (`judging.pixels`).

        Returns:
          `last_hidden_state` `[B, 1 + N, D]` (not normalised at the end) and a dict: `hidden_states`, a list of
          `num_hidden_layers + 1` such states; `pooled` `[B, D]`, the first state after the final norm; `image_embeds`
          `[B, P]`, its projection.
        """
        states = self.encoder(self.pre_layrnorm(self.embeddings(pixels)), None)
        pooled = self.post_layernorm(states[-1][:, 0])
        return states[-1], dict(hidden_states=states, pooled=pooled, image_embeds=self.visual_projection(pooled))
