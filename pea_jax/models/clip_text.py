"""CLIP's text encoder (transformers `CLIPTextModel`, `CLIPTextModelWithProjection`, and the same of MetaCLIP 2)."""

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


def quick_gelu(x: jax.Array) -> jax.Array:
    """The sigmoid approximation of GELU that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": lambda x: jax.nn.gelu(x, approximate=False)}


@dataclasses.dataclass(frozen=True)
class CLIPEncoderConfig:
    """What shapes the layers, be they of texts or of pictures; the defaults are those of transformers."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    projection_dim: int = 512
    num_hidden_layers: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig(CLIPEncoderConfig):
    """The fields of `config.json` that shape the network; the defaults are those of transformers."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407
    end_has_largest_id: bool = False

    @property
    def max_length(self) -> int:
        """The most tokens that the network takes."""
        return self.max_position_embeddings

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "CLIPTextConfig":
        """From a transformers `config.json`; fields that do not shape the network are passed over.

        Raises:
          PeaError: for an activation, a number or a head count that the network cannot have.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        fields = {name: config.get(name, default) for name, default in defaults.items()}
        check_kinds(fields, {name: default for name, default in defaults.items() if name != "eos_token_id"})
        check_whole(fields, ["eos_token_id"], least=0)
        check_choice("hidden_act", [fields["hidden_act"]], tuple(ACTIVATIONS))
        check_heads(fields)
        result = cls(**fields)
        # Checkpoints older than transformers 4.31 state 2, wrongly; their end-of-text token has the largest id.
        # MetaCLIP 2 has XLM-R's tokens, where it is 2.
        if result.eos_token_id == 2 and not str(config.get("model_type")).startswith("metaclip_2"):
            result = dataclasses.replace(result, end_has_largest_id=True)
        return result


class CLIPTextEmbeddings(nnx.Module):
    """`[B, L]` ids to `[B, L, D]`."""

    def __init__(self, config: CLIPTextConfig, **precision: Any):
        self.token_embedding = layers.embedding(config.vocab_size, config.hidden_size, **precision)
        self.position_embedding = layers.embedding(config.max_position_embeddings, config.hidden_size, **precision)

    def __call__(self, input_ids: jax.Array) -> jax.Array:
        length, longest = input_ids.shape[1], self.position_embedding.num_embeddings
        if length > longest:  # the lookup itself would return NaN
            raise PeaError(f"{length} tokens are more than the {longest} positions of this text encoder")
        positions = jnp.arange(length)[None]
        return self.token_embedding(input_ids) + self.position_embedding(positions)


class CLIPAttention(nnx.Module):
    """Multi-head self-attention of `[B, L, D]`."""

    def __init__(self, config: CLIPEncoderConfig, **precision: Any):
        width = config.hidden_size
        self.q_proj = layers.Linear(width, width, **precision)
        self.k_proj = layers.Linear(width, width, **precision)
        self.v_proj = layers.Linear(width, width, **precision)
        self.out_proj = layers.Linear(width, width, **precision)
        self.num_heads = config.num_attention_heads

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        heads = (*x.shape[:2], self.num_heads, -1)
        query, key, value = (project(x).reshape(heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attention(query, key, value, mask).reshape(x.shape))


class CLIPMLP(nnx.Module):
    """Two linear layers around `hidden_act`."""

    def __init__(self, config: CLIPEncoderConfig, **precision: Any):
        self.fc1 = layers.Linear(config.hidden_size, config.intermediate_size, **precision)
        self.fc2 = layers.Linear(config.intermediate_size, config.hidden_size, **precision)
        self.activation = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.activation(self.fc1(x)))


class CLIPEncoderLayer(nnx.Module):
    """Attention and MLP, each behind a LayerNorm and with a residual."""

    def __init__(self, config: CLIPEncoderConfig, **precision: Any):
        norm = dict(eps=config.layer_norm_eps, **precision)
        self.self_attn = CLIPAttention(config, **precision)
        self.layer_norm1 = layers.layer_norm(config.hidden_size, **norm)
        self.mlp = CLIPMLP(config, **precision)
        self.layer_norm2 = layers.layer_norm(config.hidden_size, **norm)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class CLIPEncoder(nnx.Module):
    """The stack of layers; returns all `num_hidden_layers + 1` states, its input first."""

    def __init__(self, config: CLIPEncoderConfig, **precision: Any):
        self.layers = nnx.List(layers.alike(config.num_hidden_layers, lambda: CLIPEncoderLayer(config, **precision)))

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> list[jax.Array]:
        states = [x]
        for layer in self.layers:
            states.append(calls.traced_once(layer, states[-1], mask))
        return states


class CLIPText(nnx.Module):
    """`(input_ids, attention_mask) -> (last_hidden_state, features)`; `text_projection` is None without projection."""

    def __init__(
        self,
        config: CLIPTextConfig,
        with_projection: bool,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        precision = dict(dtype=dtype, param_dtype=param_dtype)
        width, projection_dim = config.hidden_size, config.projection_dim
        self.config = config
        self.embeddings = CLIPTextEmbeddings(config, **precision)
        self.encoder = CLIPEncoder(config, **precision)
        self.final_layer_norm = layers.layer_norm(width, eps=config.layer_norm_eps, **precision)
        projection = layers.Linear(width, projection_dim, use_bias=False, **precision) if with_projection else None
        self.text_projection = projection

    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Encodes tokens.

        Args:
          input_ids: `[B, L]`, integers; L is at most `max_position_embeddings`.
          attention_mask: `[B, L]`, 0 hides a token from the others. The causal mask applies besides.

        Returns:
          `last_hidden_state` `[B, L, D]` (after the final norm) and a dict: `hidden_states`, a list of
          `num_hidden_layers + 1` states `[B, L, D]` from the embeddings on, none of them normalised at the end;
          `pooled` `[B, D]`, the last hidden state at the end-of-text token; `text_embeds` `[B, P]`, its projection.
        """
        states = self.encoder(self.embeddings(input_ids), _causal_mask(input_ids, attention_mask))
        last = self.final_layer_norm(states[-1])
        pooled = last[jnp.arange(len(last)), self._end_of_text(input_ids)]
        features = {"hidden_states": states, "pooled": pooled}
        if self.text_projection is not None:
            features["text_embeds"] = self.text_projection(pooled)
        return last, features

    def _end_of_text(self, input_ids: jax.Array) -> jax.Array:
        """Positions `[B]` of the end-of-text token."""
        if self.config.end_has_largest_id:
            return input_ids.argmax(-1)
        return (input_ids == self.config.eos_token_id).argmax(-1)


def _causal_mask(input_ids: jax.Array, attention_mask: jax.Array | None) -> jax.Array:
    """Boolean, broadcastable to `[B, heads, L, L]`."""
    length = input_ids.shape[1]
    mask = jnp.tri(length, dtype=bool)[None, None]
    return mask if attention_mask is None else mask & (attention_mask[:, None, None, :] != 0)
