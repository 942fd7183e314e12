"""Several text encoders at once, as PEA-Diffusion publishes XLM-R with Chinese-CLIP: their states side by side."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pea_jax.errors import PeaError
from pea_jax.text.architectures import ARCHITECTURES, architecture_of
from pea_jax.text.chunks import ChunkedEncoder
from pea_jax.text.encoders import TextEncoder, load_text_encoder
from pea_jax.text.framed_tokenizer import FramedTokenizer
from pea_jax.text.tokenizer import Tokenizer, check_padding, padding_rule, rules_of
from pea_jax.weights.locations import SEPARATOR, locate


class JoinedTextEncoder:
    """Texts -> token states `[B, L, D1 + D2 + ...]` of encoders with one `context_length`; used as `TextEncoder` is.

    Position l of the result is token l of each, whatever their tokenizers make of the text. `params` is a tuple.
    """

    def __init__(self, encoders: Sequence[TextEncoder]):
        lengths = {encoder.context_length for encoder in encoders}
        if len(lengths) != 1:
            each = ", ".join(f"{encoder.name_or_path}: {encoder.context_length}" for encoder in encoders)
            raise PeaError(f"text encoders side by side need one context_length ({each}); set it")
        self.encoders, self.context_length = tuple(encoders), lengths.pop()
        self.params = tuple(encoder.params for encoder in encoders)
        self.hidden_size = sum(encoder.hidden_size for encoder in encoders)
        self.name_or_path = SEPARATOR.join(encoder.name_or_path for encoder in encoders)
        self.mesh = encoders[0].mesh
        self._encode = ChunkedEncoder(lambda params, tokens: self.apply(params, **tokens), self.mesh)

    def tokenize(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` of the first encoder, `input_ids_2` and `attention_mask_2` of the next..."""
        tokens = [encoder.tokenize(texts) for encoder in self.encoders]
        return {name + _suffix(i): array for i, own in enumerate(tokens) for name, array in own.items()}

    def apply(self, params: tuple[Any, ...], **tokens: jax.Array) -> jax.Array:
        """The states `[B, L, D1 + D2 + ...]`; pure, for use inside a jitted step."""
        states = [
            encoder.apply(own, tokens["input_ids" + _suffix(i)], tokens["attention_mask" + _suffix(i)])
            for i, (encoder, own) in enumerate(zip(self.encoders, params, strict=True))
        ]
        return jnp.concatenate(states, axis=-1)

    def encode(self, texts: Sequence[str]) -> tuple[jax.Array, jax.Array]:
        """States `[B, L, D]` of any number of texts, jitted, and a mask `[B, L]`, 1 where some encoder has a token."""
        tokens = self.tokenize(texts)
        masks = [array for name, array in tokens.items() if name.startswith("attention_mask")]
        return self._encode(self.params, tokens), jnp.asarray(np.maximum.reduce(masks))

    def describe(self) -> dict[str, Any]:
        """As `TextEncoder.describe`; `encoders` holds what each of them says."""
        each = [encoder.describe() for encoder in self.encoders]
        hidden_states = {description["hidden_state"] for description in each}
        return {
            "id": self.name_or_path,
            "context_length": self.context_length,
            "prefix": each[0]["prefix"],
            "pad_token": SEPARATOR.join(description["pad_token"] for description in each),
            # Different ones can only be the defaults of the architectures.
            "hidden_state": hidden_states.pop() if len(hidden_states) == 1 else None,
            "encoders": each,
        }


def load_text_encoders(
    names: str,
    *,
    context_length: int | None = None,
    prefix: str = "",
    hidden_state: int | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
    rule: Mapping[str, Any] | None = None,
) -> TextEncoder | JoinedTextEncoder:
    """The text encoder of that name, or several, `"A + B"`; arguments and errors as for `load_text_encoder`.

    Args:
      names: what a config or an adapter has as `text_encoder.id`: folders, as `locations.locate` takes them.
      rule: what `describe` said when an adapter was trained; a tokenizer that pads otherwise is an error.
    """
    load = functools.partial(
        load_text_encoder,
        context_length=context_length,
        prefix=prefix,
        hidden_state=hidden_state,
        dtype=dtype,
        mesh=mesh,
    )
    encoders = [load(name) for name in names.split(SEPARATOR)]
    rules = rules_of(rule or {}, len(encoders))
    for encoder, own in zip(encoders, rules, strict=True):
        check_padding(encoder.tokenizer, own, encoder.name_or_path)
    return encoders[0] if len(encoders) == 1 else JoinedTextEncoder(encoders)


def with_padding(rule: Mapping[str, Any]) -> dict[str, Any]:
    """`rule`, a config's `text_encoder`, with how the tokenizers pad and truncate, in the form of `describe`.

    No weights are read; of a Hub model only its configs and tokenizer are downloaded.

    Raises:
      PeaError: a tokenizer is missing, broken or not known.
    """
    each = [{**rule, "id": name, **padding_rule(load_tokenizer_of(name))} for name in rule["id"].split(SEPARATOR)]
    if len(each) == 1:
        return each[0]
    return {**rule, "pad_token": SEPARATOR.join(own["pad_token"] for own in each), "encoders": each}


def load_tokenizer_of(name: str) -> Tokenizer | FramedTokenizer:
    """The tokenizer of the text encoder of that name, without its weights; errors as for `load_text_encoder`."""
    folder = locate(name, with_weights=False)
    return ARCHITECTURES[architecture_of(folder)].load_tokenizer(folder)


def _suffix(index: int) -> str:
    return f"_{index + 1}" if index else ""
