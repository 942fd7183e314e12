"""From a folder to token states: rows of the table against tokenizer and network of transformers."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.text.architectures import ARCHITECTURES, architecture_of
from pea_jax.weights import load_text_encoder, open_clip
from tests import tiny_tokenizers
from tests.tiny_text_models import assert_close, randomise

TEXTS = ["красное яблоко 🍎", "", "hello, 红苹果! " * 60]
WIDTHS = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
XLM_R = dict(WIDTHS, vocab_size=3002, max_position_embeddings=90, type_vocab_size=1)
T5 = dict(vocab_size=3000, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu")
VISION = dict(WIDTHS, patch_size=32)


def text_half(model: Any) -> Any:
    return model.text_model


def encoder(model: Any) -> Any:
    return model.get_encoder()


def dual(text: dict[str, Any]) -> dict[str, Any]:
    return dict(text_config=text, vision_config=VISION, projection_dim=12)


CASES = {
    "XLMRobertaModel": (XLM_R, tiny_tokenizers.xlm_r_sentencepiece, lambda model: model, 88),
    "AltCLIPModel": (dual(XLM_R | {"project_dim": 12}), tiny_tokenizers.xlm_r_sentencepiece, text_half, 77),
    "MetaClip2Model": (
        dual(XLM_R | {"max_position_embeddings": 77, "eos_token_id": 2}),
        tiny_tokenizers.xlm_r_sentencepiece,
        text_half,
        77,
    ),
    "CLIPModel": (
        dual(WIDTHS | {"vocab_size": 2149, "max_position_embeddings": 77, "eos_token_id": 2148}),
        tiny_tokenizers.clip_old,
        text_half,
        77,
    ),
    "MT5ForConditionalGeneration": (T5, tiny_tokenizers.mt5_sentencepiece, encoder, 77),
    "UMT5EncoderModel": (T5, tiny_tokenizers.t5_published, encoder, 77),
}


@pytest.mark.parametrize("name", CASES)
def test_states_are_those_of_transformers(tmp_path: pathlib.Path, name: str):
    config, write_tokenizer, part, length = CASES[name]
    kind = getattr(transformers, name)
    model = randomise(kind(kind.config_class(**config)))
    write_tokenizer(tmp_path)
    model.save_pretrained(tmp_path)
    ours = load_text_encoder(tmp_path)
    assert (ours.context_length, architecture_of(tmp_path)) == (length, name)
    check(ours, transformers.AutoTokenizer.from_pretrained(tmp_path), part(model))


def test_open_clips_own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(open_clip.NETWORKS, "xlm-roberta-large", open_clip.LARGE | XLM_R)
    model = randomise(transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**XLM_R, layer_norm_eps=1e-5)))
    tensors = {f"text.transformer.{name}": value for name, value in model.state_dict().items()}
    torch.save(tensors | {"visual.proj": torch.zeros(1)}, tmp_path / "open_clip_pytorch_model.bin")
    text = dict(text_cfg={"hf_model_name": "xlm-roberta-large"})
    (tmp_path / open_clip.CONFIG).write_text(json.dumps({"model_cfg": text}))
    tiny_tokenizers.xlm_r_sentencepiece(tmp_path)
    ours = load_text_encoder(tmp_path)
    assert (ours.context_length, ours.architecture) == (77, "CustomTextCLIP")
    check(ours, transformers.AutoTokenizer.from_pretrained(tmp_path), model)


def check(ours: Any, tokenizer: Any, reference: Callable[..., Any]) -> None:
    length = ours.context_length
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    expected = reference(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    states, mask = ours.encode(TEXTS)
    assert states.shape == (3, length, ours.hidden_size)
    np.testing.assert_array_equal(mask, tokens.attention_mask)
    assert_close(states, expected.last_hidden_state)


def test_a_folder_that_says_nothing_is_refused(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match="config.json: no such file"):
        architecture_of(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2Model"]}')
    with pytest.raises(PeaError, match="architecture GPT2Model is not known"):
        architecture_of(tmp_path)
    (tmp_path / open_clip.CONFIG).touch()
    assert architecture_of(tmp_path) == "CustomTextCLIP"


def test_every_row_has_a_length():
    """Where the network has no limit of its own."""
    assert all(row.context_length for name, row in ARCHITECTURES.items() if "T5" in name)
