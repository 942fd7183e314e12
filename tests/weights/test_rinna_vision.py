"""What is wrong with the picture half of rinna's folders; that it is right is in tests/judging/test_clip.py."""

import pathlib

import pytest
import torch

from pea_jax.errors import PeaError
from pea_jax.weights.rinna_vision import open_rinna_vision
from pea_jax.weights.vision_files import load_vision
from tests.judging import published_clips
from tests.language_clips import rewrite


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vision_config": None}, "config.json: no vision_config in it"),
        (
            {"vision_config": {"model_type": "clip_vision_model"}},
            "'clip_vision_model' is not supported beside this text",
        ),
        ({"vision_config": {"model_type": "vit", "qkv_bias": False}}, "config.json: qkv_bias=False is not supported"),
        ({"projection_dim": 1.5}, "config.json: projection_dim=1.5 must be a whole number"),
        ({"init_inv_tau": -1}, "config.json: init_inv_tau=-1 must be above 0"),
    ],
)
def test_wrong_fields_are_named(tmp_path: pathlib.Path, fields: dict, said: str):
    published_clips.save(tmp_path, "rinna CLOOB")
    rewrite(tmp_path, **fields)
    with pytest.raises(PeaError, match=said):
        open_rinna_vision(tmp_path)


@pytest.mark.parametrize("name", ["text_projection.weight", "logit_scale", "visual_projection.weight"])
def test_missing_tensors_are_named(tmp_path: pathlib.Path, name: str):
    published_clips.save(tmp_path, "rinna CLIP")
    path = tmp_path / "pytorch_model.bin"
    tensors = torch.load(path)
    del tensors[name]
    torch.save(tensors, path)
    with pytest.raises(PeaError, match=f"pytorch_model.bin.*{name}"):
        load_vision(open_rinna_vision(tmp_path))


def test_wrong_shapes_are_named(tmp_path: pathlib.Path):
    published_clips.save(tmp_path, "rinna CLIP")
    path, name = tmp_path / "pytorch_model.bin", "vision_model.embeddings.position_embeddings"
    torch.save(torch.load(path) | {name: torch.zeros(10, 32, 1, 1)}, path)
    with pytest.raises(PeaError, match=r"position_embedding.weight is \[10, 32, 1, 1\], must be \[10, 32\]"):
        load_vision(open_rinna_vision(tmp_path))
