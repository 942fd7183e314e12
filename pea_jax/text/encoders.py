"""Frozen text encoders of any language: tokenizer, network and the hidden state that is read."""

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.text.chunks import ChunkedEncoder
from pea_jax.text.tokenizer import Tokenizer, load_tokenizer
from pea_jax.weights.diffusers import read_config
from pea_jax.weights.transformers import load_bert, load_clip_text

# By the name in `architectures` of config.json: what loads it. Every network is called with (input_ids, attention_mask)
# and returns (last_hidden_state, {"hidden_states": [...], ...}).
ARCHITECTURES: dict[str, Callable[..., Any]] = {
    "BertForMaskedLM": load_bert,
    "BertModel": load_bert,
    "CLIPTextModel": load_clip_text,
    "CLIPTextModelWithProjection": load_clip_text,
}


class TextEncoder:
    """Texts -> token states `[B, L, D]`, L being the fixed `context_length`.

    `params` is the frozen tree; `apply` takes it as an argument so that a jitted step does not close over it.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Tokenizer,
        *,
        name_or_path: str,
        architecture: str,
        context_length: int,
        prefix: str = "",
        hidden_state: int = -1,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self._graphdef, self.params = nnx.split(network)
        self.tokenizer, self.name_or_path, self.architecture = tokenizer, name_or_path, architecture
        self.context_length, self.prefix, self.hidden_state = context_length, prefix, hidden_state
        self.hidden_size: int = network.config.hidden_size
        self.mesh = mesh
        self._encode = ChunkedEncoder(lambda params, tokens: self.apply(params, **tokens), mesh)

    def tokenize(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` `[len(texts), L]` int32 of `prefix` + text, padded and truncated."""
        if isinstance(texts, str):
            raise PeaError(f"texts must be a list of strings, not the string {texts!r}: put it into a list")
        return self.tokenizer.encode([self.prefix + text for text in texts], self.context_length)

    def apply(self, params: Any, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """The chosen hidden state `[B, L, D]`; pure, for use inside a jitted step."""
        last, features = nnx.merge(self._graphdef, params)(input_ids, attention_mask)
        return last if self.hidden_state == -1 else features["hidden_states"][self.hidden_state]

    def encode(self, texts: Sequence[str]) -> tuple[jax.Array, jax.Array]:
        """States `[B, L, D]` and mask `[B, L]` of any number of texts, jitted."""
        tokens = self.tokenize(texts)
        return self._encode(self.params, tokens), jnp.asarray(tokens["attention_mask"])

    def describe(self) -> dict[str, Any]:
        """What must be the same again to get these states: the arguments of `load_text_encoder` and how it pads."""
        return {
            "id": self.name_or_path,
            "architecture": self.architecture,
            "context_length": self.context_length,
            "prefix": self.prefix,
            "pad_token": self.tokenizer.pad_token,
            "pad_token_id": self.tokenizer.pad_token_id,
            "padding_side": self.tokenizer.padding_side,
            "hidden_state": self.hidden_state,
        }


def load_text_encoder(
    folder: str | pathlib.Path,
    *,
    context_length: int | None = None,
    prefix: str = "",
    hidden_state: int = -1,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
) -> TextEncoder:
    """The text encoder saved in a transformers folder: config.json, tokenizer and weights.

    Args:
      folder: any whose architecture is in `ARCHITECTURES`.
      context_length: number of tokens; by default as many as tokenizer and network allow.
      prefix: put before every text ("query: " for the E5 family).
      hidden_state: -1 is the network's `last_hidden_state` (for CLIP after its final norm); any other counts in its
        `hidden_states`, of which 0 are the embeddings and -2 is the penultimate layer.
      dtype: of storage and computation.
      mesh: devices over which `encode` splits its texts.

    Raises:
      PeaError: if something is missing, broken or unknown, or the network does not have such a length or hidden state.
    """
    folder = pathlib.Path(folder)
    architecture = read_config(folder, _architecture)
    tokenizer = load_tokenizer(folder)
    network = ARCHITECTURES[architecture](folder, dtype=dtype, mesh=mesh)
    if context_length is None:
        context_length = min(tokenizer.model_max_length or sys.maxsize, network.config.max_position_embeddings)
    _check(folder, network.config, tokenizer, context_length, hidden_state)
    return TextEncoder(
        network,
        tokenizer,
        name_or_path=str(folder),
        architecture=architecture,
        context_length=context_length,
        prefix=prefix,
        hidden_state=hidden_state,
        mesh=mesh,
    )


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures") or ["none"]
    known = [name for name in named if name in ARCHITECTURES]
    if not known:
        raise PeaError(f"architecture {', '.join(named)} is not known (known: {', '.join(ARCHITECTURES)})")
    return known[0]


def _check(folder: pathlib.Path, config: Any, tokenizer: Tokenizer, context_length: int, hidden_state: int) -> None:
    positions, layers, rows = config.max_position_embeddings, config.num_hidden_layers, config.vocab_size
    if context_length > positions:
        raise PeaError(f"{folder}: context_length={context_length} is more than the network's {positions} positions")
    if not -layers - 1 <= hidden_state <= layers:
        raise PeaError(f"{folder}: hidden_state={hidden_state} is not within -{layers + 1}..{layers}")
    if (size := tokenizer.backend.get_vocab_size()) > rows:
        raise PeaError(f"{folder}: {size} tokens in the tokenizer, {rows} in the network: they do not belong together")
