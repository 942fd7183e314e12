"""Tokenizers of all kinds and layouts give transformers' ids on 200 prompts in each language."""

import pathlib

import numpy as np
import pytest
import transformers

from pea_jax.text.tokenizer import load_tokenizer
from tests import tiny_tokenizers
from tests.prompts import COUNT, LANGUAGES, prompts

PUBLISHED = {
    kind.__name__: kind
    for kind in (
        tiny_tokenizers.xlm_r_sentencepiece,
        tiny_tokenizers.xlm_r_published,
        tiny_tokenizers.xlm_r_of_a_config,
        tiny_tokenizers.t5_published,
        tiny_tokenizers.t5_sentencepiece,
        tiny_tokenizers.mt5_sentencepiece,
        tiny_tokenizers.clip_old,
        tiny_tokenizers.clip_of_sdxl,
        tiny_tokenizers.bert_words,
        tiny_tokenizers.bert_lower_case,
    )
}


@pytest.mark.parametrize("resaved", [False, True])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_ids_are_those_of_transformers(tmp_path: pathlib.Path, kind: str, resaved: bool):
    PUBLISHED[kind](tmp_path)
    if resaved:
        tiny_tokenizers.resaved(tmp_path)
        assert (tmp_path / "tokenizer.json").is_file()
    reference, tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    for language in LANGUAGES:
        texts = prompts(language)
        expected = reference(texts, padding="max_length", truncation=True, max_length=77)
        tokens = tokenizer.encode(texts, 77)
        wrong = [text for text, a, b in zip(texts, tokens["input_ids"], expected.input_ids, strict=True) if [*a] != b]
        assert not wrong, f"{language}: {wrong[:3]}"
        np.testing.assert_array_equal(tokens["attention_mask"], expected.attention_mask)


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_are_many_and_of_every_kind(language: str):
    texts = prompts(language)
    assert len(texts) == len(set(texts)) == COUNT
    assert "" in texts and any(len(text) > 500 for text in texts)
