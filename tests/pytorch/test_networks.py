"""Text encoders whose files transformers does not read: their states in PyTorch are those in JAX."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.pytorch.text_encoder import load_text_encoders
from pea_jax.text.encoders import load_text_encoder
from pea_jax.weights import open_clip
from tests import language_clips as clips
from tests import openai_clips, tiny_tokenizers
from tests.prompts import prompts
from tests.tiny_text_models import assert_close, random_bert
from tests.weights import test_cn_clip, test_open_clip
from tests.weights.test_dual_encoders import klue_roberta

CPU = torch.device("cpu")


def save_open_clip(folder: pathlib.Path) -> None:
    test_open_clip.write(folder, "open_clip_pytorch_model.bin")
    tiny_tokenizers.xlm_r_sentencepiece(folder)


def save_cn_clip(folder: pathlib.Path) -> None:
    test_cn_clip.save(folder, random_bert(**test_cn_clip.CONFIG))
    clips.save_vocabulary(folder, test_cn_clip.LINES)


def save_korean_in_flax(folder: pathlib.Path) -> None:
    """RoBERTa with the positions 0, 1, 2, ..."""
    clips.save_hybrid_clip(folder, klue_roberta(clips.save_cased_tokenizer(folder, clips.KLUE_SPECIALS)))


CASES = {
    "CustomTextCLIP": (save_open_clip, "it"),
    "cn_clip": (save_cn_clip, "zh"),
    "ruCLIP": (openai_clips.save_ruclip, "ru"),
    "HybridCLIP": (save_korean_in_flax, "ko"),
}


@pytest.fixture(autouse=True)
def small_xlm_roberta(monkeypatch: pytest.MonkeyPatch):
    small = test_open_clip.TINY | dict(vocab_size=3002)
    monkeypatch.setattr(test_open_clip, "TINY", small)
    monkeypatch.setitem(open_clip.NETWORKS, "xlm-roberta-large", open_clip.LARGE | small)


def states(rule: dict[str, Any], texts: list[str]) -> torch.Tensor:
    return load_text_encoders(rule).encode(texts, CPU, torch.float32)


@pytest.mark.parametrize("hidden_state", [-1, -2])
@pytest.mark.parametrize("architecture", CASES)
def test_states(tmp_path: pathlib.Path, architecture: str, hidden_state: int):
    save, language = CASES[architecture]
    save(tmp_path)
    ours = load_text_encoder(tmp_path, context_length=12, hidden_state=hidden_state)
    texts = [prompts(language)[number] for number in (0, 3, 60)]
    expected, mask = ours.encode(texts)
    assert ours.architecture == architecture and len(set(mask.sum(1).tolist())) > 1
    theirs = load_text_encoders(ours.describe())
    found = theirs.encode(texts, CPU, torch.float32)
    assert theirs.hidden_size == found.shape[-1] == ours.hidden_size
    assert_close(expected, found)
    # What an adapter says that was brought in from elsewhere.
    rule = dict(id=str(tmp_path), context_length=12, prefix="", hidden_state=hidden_state)
    torch.testing.assert_close(states(rule, texts), found, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_in_half_precision_are_computed_with_in_float32(tmp_path: pathlib.Path, dtype: torch.dtype):
    size = clips.save_cased_tokenizer(tmp_path)
    random_bert(**clips.SMALL, vocab_size=size).to(dtype).save_pretrained(tmp_path)
    ours, texts = load_text_encoder(tmp_path, context_length=12), ["красное яблоко", "кот"]
    found = states(ours.describe(), texts)
    assert found.dtype == torch.float32
    assert_close(ours.encode(texts)[0], found)


def test_what_is_wrong_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    openai_clips.save_ruclip(tmp_path)
    rule = dict(id=str(tmp_path), context_length=12)
    (tmp_path / "config.json").write_text(json.dumps(openai_clips.CONFIG | dict(model_type="umt5", num_layers=1)))
    tensors = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    torch.save({name: x for name, x in tensors.items() if "ln_final" not in name}, tmp_path / "pytorch_model.bin")
    with pytest.raises(PeaError, match=r"pytorch_model.bin: final_layer_norm.weight, final_layer_norm.bias missing"):
        load_text_encoders(rule)
    (tmp_path / "config.json").write_text(json.dumps(dict(openai_clips.CONFIG, transformer_heads=7)))
    with pytest.raises(PeaError, match="cannot load it .*7"):
        load_text_encoders(rule)
    with pytest.raises(PeaError, match="encoder.block.0.layer.0.SelfAttention.k.weight, .* missing"):
        load_text_encoders(dict(rule, architecture="UMT5Model"))
    monkeypatch.setattr(transformers, "UMT5EncoderModel", None)
    with pytest.raises(PeaError, match="installed transformers .* has no UMT5EncoderModel; take a newer one"):
        load_text_encoders(dict(rule, architecture="UMT5Model"))


def test_no_jax_is_loaded():
    program = "import sys, pea_jax.pytorch; print([name for name in ('jax', 'flax', 'optax') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"
