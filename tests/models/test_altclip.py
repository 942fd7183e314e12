"""AltCLIP's text encoder against transformers, on folders that transformers wrote."""

import json
import pathlib

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.weights.altclip import load_altclip
from tests.tiny_text_models import assert_close, randomise
from tests.torch_oracle import compiled

TEXT = dict(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=14, project_dim=20,
)  # fmt: skip
VISION = dict(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
)


def saved(folder: pathlib.Path, alone: bool) -> torch.nn.Module:
    """Writes a random model; returns its text encoder."""
    if alone:
        model = transformers.AltCLIPTextModel(transformers.AltCLIPTextConfig(**TEXT))
    else:
        model = transformers.AltCLIPModel(
            transformers.AltCLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=20)
        )
    randomise(model).save_pretrained(folder)
    return getattr(model, "text_model", model)


@pytest.mark.parametrize("alone", [True, False])
def test_projected_states_agree(tmp_path: pathlib.Path, alone: bool):
    reference = saved(tmp_path, alone)
    mask = (np.arange(9)[None] < [[9], [5], [2]]).astype(np.int32)
    ids = np.where(mask, np.random.default_rng(0).integers(2, 50, (3, 9)), 1)
    expected = reference(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), output_hidden_states=True)
    last, features = compiled(load_altclip(tmp_path))(ids, mask)
    assert last.shape == (3, 9, 20)
    assert_close(last, expected.last_hidden_state)
    for ours, theirs in zip(features["hidden_states"], expected.hidden_states, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("alone", [True, False])
def test_the_second_projection_of_flagai_is_passed_over(tmp_path: pathlib.Path, alone: bool):
    saved(tmp_path, alone)
    expected = load_altclip(tmp_path).transformation.weight[...]
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    prefix = "" if alone else "text_model."
    second = {f"{prefix}transformation_pre.{name}": torch.ones(20) for name in ("weight", "bias")}
    safetensors.torch.save_file(tensors | second, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load_altclip(tmp_path).transformation.weight[...], expected)


def test_a_wrong_config_is_named(tmp_path: pathlib.Path):
    saved(tmp_path, alone=False)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"text_config": config["text_config"] | {"project_dim": 21}}))
    with pytest.raises(PeaError, match=r"transformation.weight is \[20, 32\], must be \[21, 32\]"):
        load_altclip(tmp_path)
    path.write_text(json.dumps(config | {"text_config": None}))
    with pytest.raises(PeaError, match=f"{path}: no text_config in it"):
        load_altclip(tmp_path)
