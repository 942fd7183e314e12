"""Text halves of the CLIPs of several languages, as their files are published, against the PyTorch classes in them."""

import pathlib

import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.text.encoders import load_text_encoder
from pea_jax.weights.dual_encoders import fields_of_text_half
from pea_jax.weights.text_networks import build
from tests import language_clips as clips
from tests.prompts import prompts

LENGTH = 32
POSITIONS = dict(position_ids=torch.arange(LENGTH)[None])


def test_chinese_clip(tmp_path: pathlib.Path):
    """OFA-Sys/chinese-clip-*: `vocab.txt` is all there is of the tokenizer."""
    lines = clips.word_pieces(True)
    text = dict(clips.SMALL, vocab_size=len(lines), max_position_embeddings=64)
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=clips.VISION.to_dict(), projection_dim=20)
    oracle = clips.save_whole(tmp_path, transformers.ChineseCLIPModel(config))
    clips.save_vocabulary(tmp_path, lines)
    encoder = load_text_encoder(tmp_path, context_length=LENGTH)
    assert (encoder.architecture, encoder.hidden_size, encoder.tokenizer.pad_token_id) == ("ChineseCLIPModel", 24, 0)
    clips.assert_states(encoder, oracle, "zh")
    assert_ids_of_transformers(tmp_path, encoder, "zh")
    texts = [text for text in prompts("zh") if "[MASK]" not in text and clips.has_settled_categories(text)]
    assert len(texts) > 180
    for row, text in zip(encoder.tokenize(texts)["input_ids"], texts, strict=True):
        expected = [2, *clips.plain_word_pieces(text, lines)[: LENGTH - 2], 3]
        assert row.tolist() == expected + [0] * (LENGTH - len(expected)), text


def assert_ids_of_transformers(folder: pathlib.Path, encoder, language: str) -> None:
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    expected = reference(prompts(language), padding="max_length", truncation=True, max_length=encoder.context_length)
    ours = encoder.tokenize(prompts(language))
    np.testing.assert_array_equal(ours["input_ids"], expected.input_ids)
    np.testing.assert_array_equal(ours["attention_mask"], expected.attention_mask)


def test_korean_clip(tmp_path: pathlib.Path):
    oracle = clips.save_korean_clip(tmp_path)
    encoder = load_text_encoder(tmp_path)
    assert (encoder.architecture, encoder.context_length) == ("CLIPModel", 77)
    clips.assert_states(encoder, oracle, "ko")
    assert_ids_of_transformers(tmp_path, encoder, "ko")


def klue_roberta(size: int) -> transformers.RobertaConfig:
    """Of klue/roberta: BERT's special tokens, padding has id 1."""
    fields = dict(vocab_size=size, max_position_embeddings=LENGTH + 2, type_vocab_size=1, layer_norm_eps=1e-5)
    return transformers.RobertaConfig(**clips.SMALL, **fields, pad_token_id=1)


def test_koclip(tmp_path: pathlib.Path):
    size = clips.save_cased_tokenizer(tmp_path, clips.KLUE_SPECIALS)
    oracle = clips.save_dual_encoder(tmp_path, klue_roberta(size))
    encoder = load_text_encoder(tmp_path)
    assert (encoder.architecture, encoder.context_length) == ("VisionTextDualEncoderModel", LENGTH)
    assert encoder.tokenizer.pad_token_id == 1
    clips.assert_states(encoder, oracle, "ko")
    assert_ids_of_transformers(tmp_path, encoder, "ko")


def test_koclip_in_flax(tmp_path: pathlib.Path):
    size = clips.save_cased_tokenizer(tmp_path, clips.KLUE_SPECIALS)
    oracle = clips.save_hybrid_clip(tmp_path, klue_roberta(size))
    encoder = load_text_encoder(tmp_path, context_length=LENGTH)
    assert encoder.architecture == "HybridCLIP"
    clips.assert_states(encoder, oracle, "ko", **POSITIONS)


@pytest.mark.parametrize("save", [clips.save_dual_encoder, clips.save_hybrid_clip])
def test_clip_italian(tmp_path: pathlib.Path, save):
    size = clips.save_cased_tokenizer(tmp_path)
    oracle = save(tmp_path, transformers.BertConfig(**clips.SMALL, vocab_size=size))
    encoder = load_text_encoder(tmp_path, context_length=LENGTH)
    clips.assert_states(encoder, oracle, "it")
    assert_ids_of_transformers(tmp_path, encoder, "it")


def test_context_is_that_of_published_adapters_by_default(tmp_path: pathlib.Path):
    size = clips.save_cased_tokenizer(tmp_path)
    clips.save_dual_encoder(tmp_path, transformers.BertConfig(**clips.SMALL, vocab_size=size))
    assert load_text_encoder(tmp_path).context_length == 77


ROBERTA_LARGE = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
REAL = {
    "chinese-clip-vit-huge-patch14": transformers.ChineseCLIPTextConfig(vocab_size=21128, **ROBERTA_LARGE),
    "chinese-clip-vit-large-patch14": transformers.ChineseCLIPTextConfig(vocab_size=21128),
    "japanese-cloob-vit-b-16": transformers.RobertaConfig(
        vocab_size=32000, max_position_embeddings=514, pad_token_id=3, layer_norm_eps=1e-5
    ),
    "clip-vit-large-patch14-ko": transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768
    ),
    "koclip-base-pt": transformers.RobertaConfig(
        vocab_size=32000, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **ROBERTA_LARGE
    ),
    "clip-italian": transformers.BertConfig(vocab_size=32102),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sizes(name: str):
    """Every parameter's name and shape is PyTorch's, none missing, none left over."""
    text = REAL[name]
    options = {} if isinstance(text, transformers.CLIPTextConfig) else dict(add_pooling_layer=False)
    kinds = {
        "chinese_clip_text_model": transformers.ChineseCLIPTextModel,
        "clip_text_model": transformers.CLIPTextModel,
    }
    with torch.device("meta"):
        kind = kinds.get(text.model_type)
        oracle = kind(text, **options) if kind else transformers.AutoModel.from_config(text, **options)
    expected = {name.removeprefix("text_model."): tuple(value.shape) for name, value in oracle.named_parameters()}
    fields = fields_of_text_half({"text_config": text.to_dict()})
    network = nnx.eval_shape(build(fields, positions_from_zero="japanese" in name))
    assert clips.shapes(network) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text_config": None}, "config.json: no text_config"),
        ({"text_config": {"model_type": "gpt2"}}, "text_config.model_type='gpt2' is not supported .only bert, "),
    ],
)
def test_other_text_encoders_are_refused(tmp_path: pathlib.Path, fields: dict, message: str):
    clips.save_cased_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    clips.rewrite(tmp_path, architectures=["VisionTextDualEncoderModel"], **fields)
    with pytest.raises(PeaError, match=message):
        load_text_encoder(tmp_path)
