"""The text encoder of ruCLIP against its PyTorch module."""

import json
import pathlib

import numpy as np
import pytest
import torch
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.text.encoders import load_text_encoder
from pea_jax.weights.openai_clip import clip_fields, to_transformers_names
from pea_jax.weights.text_networks import build, load_ruclip
from tests.language_clips import assert_states, shapes
from tests.openai_clips import CONFIG, ruclip, save_ruclip
from tests.prompts import prompts
from tests.tiny_text_models import assert_close, randomise
from tests.torch_oracle import compiled


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    save_ruclip(tmp_path)
    return tmp_path


def test_states(folder: pathlib.Path):
    """Padding is not masked: ruCLIP has no mask but the causal one."""
    encoder = load_text_encoder(folder)
    assert (encoder.architecture, encoder.context_length, encoder.hidden_size) == ("ruCLIP", 30, 24)
    oracle = randomise(ruclip(CONFIG))
    assert_states(encoder, oracle, "ru", masked=False)
    ids = encoder.tokenize(prompts("ru")[50:60])["input_ids"]
    _, features = compiled(load_ruclip(folder))(ids)
    with torch.no_grad():
        assert_close(features["text_embeds"], oracle(torch.from_numpy(ids).long()).text_embeds)


def test_description(folder: pathlib.Path):
    description = load_text_encoder(folder).describe()
    assert (description["pad_token_id"], description["masked"], description["padding_side"]) == (0, False, "right")


def test_parts_of_a_tensor_are_read_alone():
    stored = {"text_projection": np.arange(6.0).reshape(2, 3)}
    stored["transformer.resblocks.7.attn.in_proj_weight"] = np.arange(24.0).reshape(6, 4)
    tensors = to_transformers_names(stored)
    assert tensors["text_projection.weight"].shape == (3, 2)
    np.testing.assert_array_equal(tensors["text_projection.weight"][1:, :], [[1, 4], [2, 5]])
    key = tensors["encoder.layers.7.self_attn.k_proj.weight"]
    assert key.shape == (2, 4)
    np.testing.assert_array_equal(key[:, 2:], [[10, 11], [14, 15]])
    np.testing.assert_array_equal(key[1:, :], [[12, 13, 14, 15]])


def test_real_size():
    """ViT-L/14's text half, OpenAI's own sizes: every name and shape of PyTorch's, none left over."""
    config = CONFIG | dict(
        transformer_width=768, transformer_heads=12, transformer_layers=12, context_length=77, vocab_size=49408,
        embed_dim=768,
    )  # fmt: skip
    with torch.device("meta"):
        module = ruclip(config)
    wanted = to_transformers_names(dict(module.state_dict()))
    network = nnx.eval_shape(build(clip_fields(config), with_projection=True))
    assert shapes(network) == {name: tuple(tensor.shape) for name, tensor in wanted.items()}


@pytest.mark.parametrize(
    ("field", "message"),
    [("transformer_width", "not the config of a ruCLIP model: no transformer_width"), ("vocab_size", "no vocab_size")],
)
def test_incomplete_config_is_named(folder: pathlib.Path, field: str, message: str):
    config = {name: value for name, value in CONFIG.items() if name != field}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PeaError, match=message):
        load_text_encoder(folder)


def test_unknown_tensors_are_named(folder: pathlib.Path):
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(tensors | {"transformer.resblocks.0.ln_3.weight": torch.zeros(24)}, folder / "pytorch_model.bin")
    with pytest.raises(PeaError, match=r"1 unexpected \(transformer.resblocks.0.ln_3.weight\)"):
        load_ruclip(folder)
