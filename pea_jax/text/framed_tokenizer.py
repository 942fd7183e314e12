"""Tokenizers that are a function from a text to ids, with special tokens around what it gives."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from pea_jax.errors import PeaError


@dataclasses.dataclass(frozen=True)
class FramedTokenizer:
    """`first`, the ids of the text cut to what fits, `last`, and padding to the right.

    Used as `tokenizer.Tokenizer` is, for what the `tokenizers` library cannot express.
    """

    text_to_ids: Callable[[str], list[int]]
    first: tuple[int, ...]
    last: tuple[int, ...]
    pad_token: str
    pad_token_id: int
    vocab_size: int
    model_max_length: int | None
    padding_side: str = "right"
    truncation_side: str = "right"
    unk_token_id: int | None = None

    def encode(self, texts: Sequence[str], context_length: int) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask`, both `[len(texts), context_length]` int32.

        Raises:
          PeaError: if `texts` is one string, or `context_length` leaves no room for a text.
        """
        if isinstance(texts, str):
            raise PeaError(f"texts must be a list of strings, not the string {texts!r}: put it into a list")
        room = context_length - len(self.first) - len(self.last)
        if room < 1:
            specials = len(self.first) + len(self.last)
            raise PeaError(f"context_length={context_length} leaves no room beside {specials} special tokens")
        input_ids = np.full((len(texts), context_length), self.pad_token_id, np.int32)
        attention_mask = np.zeros_like(input_ids)
        for row, text in enumerate(texts):
            ids = [*self.first, *self.text_to_ids(text)[:room], *self.last]
            input_ids[row, : len(ids)], attention_mask[row, : len(ids)] = ids, 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}
