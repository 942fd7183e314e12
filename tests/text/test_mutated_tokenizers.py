"""Spoilt tokenizer folders: each is refused in one clear line, or encodes."""

import pathlib
import random

import pytest

from pea_jax.errors import PeaError
from pea_jax.text.tokenizer import load_tokenizer
from tests import tiny_tokenizers
from tests.weights.test_mutated_files import edit_json, flip_bits, truncate

CASES = 300
KINDS = (tiny_tokenizers.clip_of_sdxl, tiny_tokenizers.xlm_r_sentencepiece, tiny_tokenizers.bert_words)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clear_error_or_a_tokenizer(kind, tmp_path: pathlib.Path):
    kind(tmp_path)
    tiny_tokenizers.resaved(tmp_path)
    original = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    rng, refused = random.Random(0), 0
    for case in range(CASES):
        path = rng.choice(list(original))
        path.write_bytes(rng.choice((flip_bits, truncate, edit_json, edit_json))(original[path], rng))
        try:
            tokens = load_tokenizer(tmp_path).encode(["a red apple", "", "红苹果 🍎"], 8)
        except PeaError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error), f"case {case}: {error}"
            refused += 1
        else:
            assert tokens["input_ids"].shape == (3, 8), f"case {case}"
        path.write_bytes(original[path])
    assert CASES / 10 < refused < CASES
