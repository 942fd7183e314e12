"""Frozen text encoders of any language: tokenizer, network and the hidden state that is read."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.text.architectures import ARCHITECTURES, architecture_of
from pea_jax.text.chunks import ChunkedEncoder
from pea_jax.text.framed_tokenizer import FramedTokenizer
from pea_jax.text.networks import NETWORKS
from pea_jax.text.tokenizer import Tokenizer, padding_rule
from pea_jax.weights.locations import locate


class TextEncoder:
    """Texts -> token states `[B, L, D]`, L being the fixed `context_length`.

    `params` is the frozen tree; `apply` takes it as an argument so that a jitted step does not close over it.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Tokenizer | FramedTokenizer,
        *,
        name_or_path: str,
        architecture: str,
        context_length: int,
        prefix: str = "",
        hidden_state: int = -1,
        masked: bool = True,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self._graphdef, self.params = nnx.split(network)
        self.tokenizer, self.name_or_path, self.architecture = tokenizer, name_or_path, architecture
        self.context_length, self.prefix = context_length, prefix
        self.hidden_state, self.masked, self.mesh = hidden_state, masked, mesh
        tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        self.hidden_size: int = jax.eval_shape(self.apply, self.params, tokens, tokens).shape[-1]
        self._encode = ChunkedEncoder(lambda params, tokens: self.apply(params, **tokens), mesh)

    def tokenize(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` `[len(texts), L]` int32 of `prefix` + text, padded and truncated."""
        if isinstance(texts, str):
            raise PeaError(f"texts must be a list of strings, not the string {texts!r}: put it into a list")
        return self.tokenizer.encode([self.prefix + text for text in texts], self.context_length)

    def run(self, params: Any, input_ids: jax.Array, attention_mask: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        """The network's `last_hidden_state` `[B, L, D]` and its features; pure."""
        return nnx.merge(self._graphdef, params)(input_ids, attention_mask if self.masked else None)

    def apply(self, params: Any, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """The chosen hidden state `[B, L, D]`; pure, for use inside a jitted step."""
        last, features = self.run(params, input_ids, attention_mask)
        return last if self.hidden_state == -1 else features["hidden_states"][self.hidden_state]

    def encode(self, texts: Sequence[str]) -> tuple[jax.Array, jax.Array]:
        """States `[B, L, D]` and mask `[B, L]` of any number of texts, jitted."""
        tokens = self.tokenize(texts)
        return self._encode(self.params, tokens), jnp.asarray(tokens["attention_mask"])

    def describe(self) -> dict[str, Any]:
        """What must be the same again to get these states: the arguments of `load_text_encoder`, how it pads and
        truncates (the special tokens at the end stay), and whether padding is hidden from the network."""
        return {
            "id": self.name_or_path,
            "architecture": self.architecture,
            "context_length": self.context_length,
            "prefix": self.prefix,
            **padding_rule(self.tokenizer),
            "masked": self.masked,
            "hidden_state": self.hidden_state,
        }


def load_text_encoder(
    folder: str | pathlib.Path,
    *,
    context_length: int | None = None,
    prefix: str = "",
    hidden_state: int | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
) -> TextEncoder:
    """The text encoder saved in a folder: configuration, tokenizer and weights.

    Args:
      folder: a path, or OWNER/NAME on the Hugging Face Hub, of any whose architecture is in `ARCHITECTURES`, which
        gives the defaults below.
      context_length: number of tokens.
      prefix: put before every text ("query: " for the E5 family).
      hidden_state: -1 is the network's `last_hidden_state` (for CLIP after its final norm); any other counts in its
        `hidden_states`, of which 0 are the embeddings and -2 is the penultimate layer.
      dtype: of storage and computation.
      mesh: devices over which `encode` splits its texts.

    Raises:
      PeaError: if something is missing, broken or unknown, or the network does not have such a length or hidden state.
    """
    name, folder = str(folder), locate(folder)
    architecture = architecture_of(folder)
    row = ARCHITECTURES[architecture]
    tokenizer = row.load_tokenizer(folder)
    network = NETWORKS[row.network](folder, dtype=dtype, mesh=mesh)
    if context_length is None:
        limits = (row.context_length, tokenizer.model_max_length, network.config.max_length)
        context_length = min(limit for limit in limits if limit is not None)
    hidden_state = row.hidden_state if hidden_state is None else hidden_state
    _check(folder, network.config, tokenizer, context_length, hidden_state)
    return TextEncoder(
        network,
        tokenizer,
        name_or_path=name,
        architecture=architecture,
        context_length=context_length,
        prefix=prefix,
        hidden_state=hidden_state,
        masked=row.masked,
        mesh=mesh,
    )


def _check(
    folder: pathlib.Path, config: Any, tokenizer: Tokenizer | FramedTokenizer, context_length: int, hidden_state: int
) -> None:
    longest, layers, rows = config.max_length, config.num_hidden_layers, config.vocab_size
    if longest is not None and context_length > longest:
        raise PeaError(f"{folder}: context_length={context_length} is more than the network's {longest} positions")
    if not -layers - 1 <= hidden_state <= layers:
        raise PeaError(f"{folder}: hidden_state={hidden_state} is not within -{layers + 1}..{layers}")
    if (size := tokenizer.vocab_size) > rows:
        raise PeaError(f"{folder}: {size} tokens in the tokenizer, {rows} in the network: they do not belong together")
