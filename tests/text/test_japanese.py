"""rinna's Japanese CLIP and CLOOB: tokenizer and states against the published functions and the RoBERTa in them."""

import pathlib

import numpy as np
import pytest
import sentencepiece
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.text.encoders import load_text_encoder
from pea_jax.text.japanese import load_japanese_tokenizer
from tests import language_clips as clips
from tests.prompts import prompts
from tests.tiny_text_models import randomise
from tests.tiny_tokenizers import JAPANESE_PAD as PAD
from tests.tiny_tokenizers import JAPANESE_SIZE as SIZE
from tests.tiny_tokenizers import japanese_sentencepiece

CLS = 4


@pytest.fixture(scope="module")
def model() -> bytes:
    return japanese_sentencepiece()


@pytest.fixture
def folder(tmp_path: pathlib.Path, model: bytes) -> pathlib.Path:
    (tmp_path / "spiece.model").write_bytes(model)
    return tmp_path


@pytest.mark.parametrize("length", [77, 12])
def test_ids(folder: pathlib.Path, model: bytes, length: int):
    """As `japanese_clip.tokenize`: no special tokens but one [CLS] in front of the cut and padded ids."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = load_japanese_tokenizer(folder)
    texts = [text for text in prompts("ja") if "[MASK]" not in text]
    tokens = tokenizer.encode(texts, length)
    for ids, mask, text in zip(*tokens.values(), texts, strict=True):
        expected = processor.encode(text.lower())[: length - 1]
        assert ids.tolist() == [CLS, *expected, *[PAD] * (length - 1 - len(expected))], text
        assert mask.tolist() == [1] * (1 + len(expected)) + [0] * (length - 1 - len(expected))
    assert any(0 in ids for ids in tokens["input_ids"]) and np.any(tokens["attention_mask"].sum(1) == length)
    assert tokenizer.vocab_size == SIZE


def test_special_tokens_in_a_text(folder: pathlib.Path):
    tokenizer = load_japanese_tokenizer(folder)
    ids = tokenizer.encode(["</s>[MASK]<s>[PAD]"], 6)["input_ids"][0]
    assert ids.tolist() == [CLS, 2, 6, 1, PAD, PAD]


@pytest.mark.parametrize("text", [transformers.RobertaModel, transformers.BertModel])
@pytest.mark.parametrize("architecture", ["CLIPModel", "CLOOBModel"])
def test_states(folder: pathlib.Path, architecture: str, text: type):
    """The text half has the positions 0, 1, 2, ..., padding or not, which RoBERTa would not give it by itself.

    The published code takes a BERT as well, and the model's page calls its text encoder so.
    """
    config = text.config_class(
        **clips.SMALL, vocab_size=SIZE, max_position_embeddings=82, pad_token_id=PAD, layer_norm_eps=1e-5
    )
    oracle = randomise(text(config, add_pooling_layer=False))
    kind = architecture.removesuffix("Model").lower()
    clips.save_text_half(folder, oracle, {"architectures": [architecture], "model_type": kind})
    encoder = load_text_encoder(folder)
    assert encoder.architecture == (f"CLIPModel/{config.model_type}" if kind == "clip" else "CLOOBModel")
    assert (encoder.context_length, encoder.tokenizer.pad_token_id, encoder.hidden_size) == (77, PAD, 24)
    clips.assert_states(encoder, oracle, "ja", position_ids=torch.arange(77)[None])


def test_missing_model_is_named(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match="spiece.model: no such file; it comes with rinna/japanese-roberta-base"):
        load_japanese_tokenizer(tmp_path)


def test_broken_model_is_named(tmp_path: pathlib.Path):
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(PeaError, match="spiece.model: not a sentencepiece model"):
        load_japanese_tokenizer(tmp_path)
