"""The encoder of T5 v1.1, mT5 and uMT5 (transformers `T5EncoderModel`, `MT5EncoderModel`, `UMT5EncoderModel`)."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models import calls, layers
from pea_jax.models.attention import attention
from pea_jax.models.config_fields import check_kinds, check_whole

linear = functools.partial(layers.Linear, use_bias=False)


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The fields of `config.json` that shape the network; the defaults are those of transformers."""

    vocab_size: int = 250112
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    bias_in_every_layer: bool = False  # uMT5; the others have one bias of positions for all layers

    max_length = None  # positions are relative: there may be any number of tokens

    @property
    def num_hidden_layers(self) -> int:
        return self.num_layers

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "T5Config":
        """From a transformers `config.json`; fields that do not shape the encoder are passed over.

        Raises:
          PeaError: for a number that is none, or a feed-forward network other than the gated one, which the original T5
            does not have.
        """
        kind = config.get("model_type", "t5")
        feed_forward = config.get("feed_forward_proj", "relu" if kind == "t5" else "gated-gelu")
        if feed_forward != "gated-gelu":
            raise PeaError(f"feed_forward_proj={feed_forward!r} is not supported (only 'gated-gelu', as in T5 v1.1)")
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        fields = {name: config.get(name, default) for name, default in defaults.items()}
        fields["bias_in_every_layer"] = kind == "umt5"
        check_kinds(fields, defaults)
        check_whole(fields, ["relative_attention_num_buckets"], least=4)
        exact = fields["relative_attention_num_buckets"] // 4
        check_whole(fields, ["relative_attention_max_distance"], least=exact + 1)
        return cls(**fields)


class T5Attention(nnx.Module):
    """Self-attention of `[B, L, D]` with a bias of positions and without scaling; returns the bias for other layers."""

    def __init__(self, config: T5Config, has_bias: bool, **precision: Any):
        width = config.num_heads * config.d_kv
        self.q = linear(config.d_model, width, **precision)
        self.k = linear(config.d_model, width, **precision)
        self.v = linear(config.d_model, width, **precision)
        self.o = linear(width, config.d_model, **precision)
        self.num_heads, self.max_distance = config.num_heads, config.relative_attention_max_distance
        buckets = config.relative_attention_num_buckets
        self.relative_attention_bias = layers.embedding(buckets, config.num_heads, **precision) if has_bias else None

    def __call__(
        self, x: jax.Array, mask: jax.Array | None, bias: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        if self.relative_attention_bias is not None:
            buckets = position_buckets(x.shape[1], self.relative_attention_bias.num_embeddings, self.max_distance)
            bias = self.relative_attention_bias(jnp.asarray(buckets)).transpose(2, 0, 1)[None]
        heads = (*x.shape[:2], self.num_heads, -1)
        query, key, value = (project(x).reshape(heads) for project in (self.q, self.k, self.v))
        y = attention(query, key, value, mask, bias=bias, scale=1.0)
        return self.o(y.reshape(*x.shape[:2], -1)), bias


class T5LayerSelfAttention(nnx.Module):
    """Attention behind a norm, with a residual."""

    def __init__(self, config: T5Config, has_bias: bool, **precision: Any):
        self.SelfAttention = T5Attention(config, has_bias, **precision)
        self.layer_norm = layers.rms_norm(config.d_model, epsilon=config.layer_norm_epsilon, **precision)

    def __call__(
        self, x: jax.Array, mask: jax.Array | None, bias: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        y, bias = self.SelfAttention(self.layer_norm(x), mask, bias)
        return x + y, bias


class T5DenseGatedActDense(nnx.Module):
    """A GELU (by its tanh formula) times a linear branch, projected back."""

    def __init__(self, config: T5Config, **precision: Any):
        self.wi_0 = linear(config.d_model, config.d_ff, **precision)
        self.wi_1 = linear(config.d_model, config.d_ff, **precision)
        self.wo = linear(config.d_ff, config.d_model, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.wo(jax.nn.gelu(self.wi_0(x)) * self.wi_1(x))


class T5LayerFF(nnx.Module):
    """The feed-forward network behind a norm, with a residual."""

    def __init__(self, config: T5Config, **precision: Any):
        self.DenseReluDense = T5DenseGatedActDense(config, **precision)
        self.layer_norm = layers.rms_norm(config.d_model, epsilon=config.layer_norm_epsilon, **precision)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.DenseReluDense(self.layer_norm(x))


class T5Block(nnx.Module):
    """Attention and feed-forward."""

    def __init__(self, config: T5Config, has_bias: bool, **precision: Any):
        self.layer = nnx.List([T5LayerSelfAttention(config, has_bias, **precision), T5LayerFF(config, **precision)])

    def __call__(
        self, x: jax.Array, mask: jax.Array | None, bias: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        attention, feed_forward = self.layer
        x, bias = attention(x, mask, bias)
        return feed_forward(x), bias


class T5Stack(nnx.Module):
    """The blocks and the final norm; returns `num_layers + 1` states, its input first, the last one normalised."""

    def __init__(self, config: T5Config, **precision: Any):
        has_bias = [config.bias_in_every_layer or i == 0 for i in range(config.num_layers)]
        self.block = nnx.List(T5Block(config, own, **precision) for own in has_bias)
        self.final_layer_norm = layers.rms_norm(config.d_model, epsilon=config.layer_norm_epsilon, **precision)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> list[jax.Array]:
        states, bias = [x], None
        for block in self.block:
            x, bias = calls.traced_once(block, x, mask, bias)
            states.append(x)
        return [*states[:-1], self.final_layer_norm(x)]


class T5Encoder(nnx.Module):
    """`(input_ids, attention_mask) -> (last_hidden_state, features)`."""

    def __init__(
        self,
        config: T5Config,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        self.config = config
        self.shared = layers.embedding(config.vocab_size, config.d_model, **precision)
        self.encoder = T5Stack(config, **precision)

    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Encodes tokens.

        Args:
          input_ids: `[B, L]`, integers.
          attention_mask: `[B, L]`, 0 hides a token from all others. Give it whenever there is padding.

        Returns:
          `last_hidden_state` `[B, L, D]` (after the final norm) and `{"hidden_states": ...}`, a list of
          `num_layers + 1` states from the embeddings to the last.
        """
        mask = None if attention_mask is None else attention_mask[:, None, None, :] != 0
        states = self.encoder(self.shared(input_ids), mask)
        return states[-1], {"hidden_states": states}


def position_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """For each query and key of a text the bucket `[length, length]` of their distance, as T5 defines it.

    Half of the buckets is for keys after the query. Of each half, half is for one distance each and the rest for
    ranges that grow as the logarithm, up to `max_distance`.
    """
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    half, exact = num_buckets // 2, num_buckets // 4
    # In float32, and in this order, as PyTorch: some distances lie on the border of two ranges.
    ratio = np.maximum(np.abs(distance), 1).astype(np.float32) / np.float32(exact)
    steps = np.log(ratio) / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + steps.astype(np.int32), half - 1)
    return np.where(np.abs(distance) < exact, np.abs(distance), far) + half * (distance > 0)
