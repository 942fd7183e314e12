"""The encoder of BERT, RoBERTa and XLM-R without pooler (transformers `BertModel`, `XLMRobertaModel`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models import calls, layers
from pea_jax.models.attention import attention
from pea_jax.models.config_fields import check_choice, check_heads, check_kinds, check_whole

ACTIVATIONS = {"gelu": lambda x: jax.nn.gelu(x, approximate=False), "gelu_new": jax.nn.gelu, "relu": jax.nn.relu}
ROBERTAS = ("roberta", "xlm-roberta", "camembert")
SUPPORTED = {"position_embedding_type": "absolute", "is_decoder": False}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The fields of `config.json` that shape the network; the defaults are those of transformers."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    padding_idx: int | None = None  # RoBERTa's positions count from `padding_idx + 1` and skip padding; None: from 0

    @property
    def max_length(self) -> int:
        """The most tokens that the network takes."""
        return self.max_position_embeddings - (0 if self.padding_idx is None else self.padding_idx + 1)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "BertConfig":
        """From a transformers `config.json`; fields that do not shape the network are passed over.

        Raises:
          PeaError: for an activation, a number, a head count, a kind of positions or a decoder that this network cannot
            have.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        fields = {name: config.get(name, default) for name, default in defaults.items()}
        fields["padding_idx"] = config.get("pad_token_id", 1) if config.get("model_type") in ROBERTAS else None
        check_kinds(fields, defaults)
        if fields["padding_idx"] is not None:
            check_whole(fields, ["padding_idx"], least=0)
        check_choice("hidden_act", [fields["hidden_act"]], tuple(ACTIVATIONS))
        check_heads(fields)
        for name, value in SUPPORTED.items():
            if config.get(name, value) != value:
                raise PeaError(f"{name}={config[name]!r} is not supported (only {value!r})")
        return cls(**fields)


class BertEmbeddings(nnx.Module):
    """`[B, L]` ids to `[B, L, D]`: words, positions, token type 0, normalised."""

    def __init__(self, config: BertConfig, **precision: Any):
        width = config.hidden_size
        self.word_embeddings = layers.embedding(config.vocab_size, width, **precision)
        self.position_embeddings = layers.embedding(config.max_position_embeddings, width, **precision)
        self.token_type_embeddings = layers.embedding(config.type_vocab_size, width, **precision)
        self.LayerNorm = layers.layer_norm(width, eps=config.layer_norm_eps, **precision)
        self.max_length, self.padding_idx = config.max_length, config.padding_idx

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        length = input_ids.shape[1]
        if length > self.max_length:  # the lookup itself would return NaN
            raise PeaError(f"{length} tokens are more than the {self.max_length} positions of this text encoder")
        offset = self.position_embeddings(self._positions(input_ids))
        offset += self.token_type_embeddings(jnp.zeros((1, length), jnp.int32))
        return self.LayerNorm(self.word_embeddings(input_ids) + offset)

    def _positions(self, input_ids: jax.Array) -> jax.Array:
        """`[B, L]`, or `[1, L]` where they do not depend on the tokens."""
        if self.padding_idx is None:
            return jnp.arange(input_ids.shape[1])[None]
        is_token = input_ids != self.padding_idx
        return jnp.cumsum(is_token, axis=1) * is_token + self.padding_idx


class BertSelfAttention(nnx.Module):
    """Multi-head attention of `[B, L, D]` to `context`, before the output projection: to itself, or to other states.

    Those may have a width of their own.
    """

    def __init__(self, config: BertConfig, context_width: int | None = None, **precision: Any):
        width = config.hidden_size
        self.query = layers.Linear(width, width, **precision)
        self.key = layers.Linear(context_width or width, width, **precision)
        self.value = layers.Linear(context_width or width, width, **precision)
        self.num_heads = config.num_attention_heads

    def __call__(self, x: jax.Array, context: jax.Array, mask: jax.Array | None) -> jax.Array:
        query, key, value = (
            states.reshape(*states.shape[:2], self.num_heads, -1)
            for states in (self.query(x), self.key(context), self.value(context))
        )
        return attention(query, key, value, mask).reshape(x.shape)


class BertOutput(nnx.Module):
    """A projection added to the residual, then normalised."""

    def __init__(self, in_features: int, config: BertConfig, **precision: Any):
        self.dense = layers.Linear(in_features, config.hidden_size, **precision)
        self.LayerNorm = layers.layer_norm(config.hidden_size, eps=config.layer_norm_eps, **precision)

    def __call__(self, x: jax.Array, residual: jax.Array) -> jax.Array:
        return self.LayerNorm(self.dense(x) + residual)


class BertAttention(nnx.Module):
    """Attention to itself, or to other states, with its residual."""

    def __init__(self, config: BertConfig, context_width: int | None = None, **precision: Any):
        self.self = BertSelfAttention(config, context_width, **precision)
        self.output = BertOutput(config.hidden_size, config, **precision)

    def __call__(self, x: jax.Array, mask: jax.Array | None, context: jax.Array | None = None) -> jax.Array:
        return self.output(self.self(x, x if context is None else context, mask), x)


class BertIntermediate(nnx.Module):
    """The wide half of the feed-forward network."""

    def __init__(self, config: BertConfig, **precision: Any):
        self.dense = layers.Linear(config.hidden_size, config.intermediate_size, **precision)
        self.activation = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.dense(x))


class BertLayer(nnx.Module):
    """Attention and feed-forward, each followed by residual and LayerNorm."""

    def __init__(self, config: BertConfig, **precision: Any):
        self.attention = BertAttention(config, **precision)
        self.intermediate = BertIntermediate(config, **precision)
        self.output = BertOutput(config.intermediate_size, config, **precision)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(nnx.Module):
    """The stack of layers; returns all `num_hidden_layers + 1` states, its input first."""

    def __init__(self, config: BertConfig, **precision: Any):
        self.layer = nnx.List(layers.alike(config.num_hidden_layers, lambda: BertLayer(config, **precision)))

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> list[jax.Array]:
        states = [x]
        for layer in self.layer:
            states.append(calls.traced_once(layer, states[-1], mask))
        return states


class Bert(nnx.Module):
    """`(input_ids, attention_mask) -> (last_hidden_state, features)`."""

    def __init__(
        self,
        config: BertConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        precision = dict(dtype=dtype, param_dtype=param_dtype)
        self.config = config
        self.embeddings = BertEmbeddings(config, **precision)
        self.encoder = BertEncoder(config, **precision)

    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Encodes tokens.

        Args:
          input_ids: `[B, L]`, integers; L is at most the config's `max_length`.
          attention_mask: `[B, L]`, 0 hides a token from all others. Give it whenever there is padding: the id of the
            padding token means nothing to BERT, and to RoBERTa only that no position is counted.

        Returns:
          `last_hidden_state` `[B, L, D]` and `{"hidden_states": ...}`, a list of `num_hidden_layers + 1` states from
          the embeddings to the last.
        """
        mask = None if attention_mask is None else attention_mask[:, None, None, :] != 0
        states = self.encoder(self.embeddings(input_ids), mask)
        return states[-1], {"hidden_states": states}
