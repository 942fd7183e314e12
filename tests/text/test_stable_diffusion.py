"""The conditioner of Stable Diffusion 1 and 2 against diffusers, and the choice among conditioners."""

import json
import pathlib
import types
from typing import Any

import diffusers
import pytest

from pea_jax.errors import PeaError
from pea_jax.text.conditioner import StableDiffusionXLConditioner
from pea_jax.text.stable_diffusion import StableDiffusionConditioner, load_conditioner
from tests.tiny_text_models import (
    CONTEXT,
    VOCABULARY,
    assert_close,
    clip_tokenizer,
    random_clip,
    save_sdxl_text_models,
)

PROMPTS = ["red apple!", "", "cat " * 30]
SHARED = dict(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, hidden_size=16, num_attention_heads=2)
ENCODERS = {
    "1.5": (dict(SHARED, intermediate_size=40, num_hidden_layers=2, eos_token_id=2), "<|endoftext|>"),
    "2.1": (dict(SHARED, intermediate_size=32, num_hidden_layers=3, eos_token_id=2, hidden_act="gelu"), "!"),
}


def save(folder: pathlib.Path, version: str = "1.5") -> Any:
    """Writes the text half of a folder; returns its encoder."""
    config, pad_token = ENCODERS[version]
    encoder = random_clip(with_projection=False, **config)
    encoder.save_pretrained(folder / "text_encoder")
    clip_tokenizer(pad_token).save_pretrained(folder / "tokenizer")
    return encoder


def write_index(folder: pathlib.Path, **parts: Any) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "SomePipeline", **parts}))


@pytest.mark.parametrize("version", ENCODERS)
def test_encode_prompt(tmp_path: pathlib.Path, version: str):
    text_encoder = save(tmp_path, version)
    pipeline = types.SimpleNamespace(
        text_encoder=text_encoder, tokenizer=clip_tokenizer(ENCODERS[version][1]), unet=None, _execution_device="cpu"
    )
    expected, _ = diffusers.StableDiffusionPipeline.encode_prompt(pipeline, PROMPTS, "cpu", 1, False)
    conditioner = load_conditioner(tmp_path)
    assert isinstance(conditioner, StableDiffusionConditioner)
    conditioning = conditioner.encode(PROMPTS)
    assert_close(conditioning.prompt_embeds, expected)
    assert conditioning.pooled_prompt_embeds is None and conditioning.attention_mask is None
    assert conditioner.unconditional(2).prompt_embeds.shape == (2, CONTEXT, 16)


def test_the_index_decides_before_the_subfolders(tmp_path: pathlib.Path):
    save_sdxl_text_models(tmp_path)
    assert isinstance(load_conditioner(tmp_path), StableDiffusionXLConditioner)
    clip = ["transformers", "CLIPTextModel"]
    write_index(tmp_path, text_encoder=clip, text_encoder_2=[None, None], unet=["diffusers", "UNet2DConditionModel"])
    assert isinstance(load_conditioner(tmp_path), StableDiffusionConditioner)
    write_index(tmp_path, text_encoder=clip, text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    assert isinstance(load_conditioner(tmp_path), StableDiffusionXLConditioner)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "has no text encoder; Stable Diffusion 1 and 2 have text_encoder, "),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "has text_encoder_2; "),
        ({"text_encoder": ["kolors", "ChatGLMModel"]}, "text_encoder is a ChatGLMModel, not a CLIPTextModel"),
        ({"text_encoder": 3}, "model_index.json: not the index of a diffusers pipeline"),
    ],
)
def test_other_pipelines_are_refused(tmp_path: pathlib.Path, parts: dict, message: str):
    write_index(tmp_path, **parts)
    with pytest.raises(PeaError, match=message):
        load_conditioner(tmp_path)


def test_a_tokenizer_of_more_tokens_is_refused(tmp_path: pathlib.Path):
    save(tmp_path)
    clip_tokenizer(context_length=20).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(PeaError, match="model_max_length 20 must be at most the encoder's max_position_embeddings 16"):
        load_conditioner(tmp_path)
