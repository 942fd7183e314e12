"""Special tokens, truncation and padding around a function from text to ids."""

import numpy as np
import pytest

from pea_jax.errors import PeaError
from pea_jax.text.framed_tokenizer import FramedTokenizer

LETTERS = FramedTokenizer(lambda text: [ord(letter) for letter in text], (2,), (3,), "<pad>", 0, 128, None)


def test_frame():
    tokens = LETTERS.encode(["ab", "", "abcd"], 4)
    assert tokens["input_ids"].tolist() == [[2, 97, 98, 3], [2, 3, 0, 0], [2, 97, 98, 3]]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert {values.dtype for values in tokens.values()} == {np.dtype(np.int32)}
    assert LETTERS.encode([], 4)["input_ids"].shape == (0, 4)


def test_what_cannot_be_tokenised_is_refused():
    with pytest.raises(PeaError, match="list of strings"):
        LETTERS.encode("ab", 8)
    with pytest.raises(PeaError, match="context_length=2 leaves no room beside 2 special tokens"):
        LETTERS.encode(["ab"], 2)
