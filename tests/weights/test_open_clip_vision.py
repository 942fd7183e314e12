"""open_clip's config of the picture half: published ones, and what is refused; numbers are in judging/test_clip.py."""

import json
import pathlib

import pytest
import torch

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVisionConfig
from pea_jax.weights import open_clip
from pea_jax.weights.open_clip_vision import open_open_clip_vision
from tests.judging import published_clips

TEXT = {"hf_model_name": "xlm-roberta-large", "hf_tokenizer_name": "xlm-roberta-large"}
# Of src/open_clip/model_configs in mlfoundations/open_clip.
XLM_R_LARGE_VIT_H_14 = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": TEXT | {"hf_pooler_type": "mean_pooler"},
}
XLM_R_BASE_VIT_B_32 = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": TEXT | {"hf_model_name": "xlm-roberta-base", "proj": "mlp", "pooler_type": "mean_pooler"},  # old names
}
VIT_H = dict(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
    projection_dim=1024, hidden_act="gelu",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The weights are of another model: nothing here reads more of them than what joins the halves."""
    published_clips.save(tmp_path, "open_clip")
    return tmp_path


def describe(folder: pathlib.Path, config: dict, **vision: object) -> None:
    changed = config | {"vision_cfg": config["vision_cfg"] | vision}
    (folder / open_clip.CONFIG).write_text(json.dumps({"model_cfg": changed}))


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (XLM_R_LARGE_VIT_H_14, VIT_H),
        (XLM_R_LARGE_VIT_H_14 | {"quick_gelu": True}, VIT_H | {"hidden_act": "quick_gelu"}),
        (XLM_R_BASE_VIT_B_32, {"hidden_act": "gelu"}),
    ],
)
def test_published_configs(folder: pathlib.Path, config: dict, fields: dict):
    describe(folder, config, patch_dropout=0.5, output_tokens=True, timm_pool="avg")
    opened = open_open_clip_vision(folder)
    assert opened.config == CLIPVisionConfig(**fields)
    assert [matrix.shape for matrix in opened.heads.text_projections] == [(24, 22), (22, 20)]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (
            "timm_model_name",
            "vit_medium_patch16_gap_256",
            "timm_model_name='vit_medium_patch16_gap_256' is not supported",
        ),
        ("layers", [3, 4, 6, 3], r"vision_cfg.layers=\[3, 4, 6, 3\] is a ResNet"),
        ("attentional_pool", True, "attentional_pool=True is not supported"),
        ("pool_type", "avg", "pool_type='avg' is not supported"),
        ("no_ln_pre", True, "no_ln_pre=True is not supported"),
        ("norm_kwargs", {"eps": 1e-6}, "norm_kwargs={'eps': 1e-06} is not supported"),
        ("registers", 4, "field 'registers' is not known"),
        ("image_size", [224, 320], r"image_size=\[224, 320\] must be a whole number"),
        ("head_width", 0, "head_width=0 must be a whole number"),
    ],
)
def test_other_picture_encoders_are_refused(folder: pathlib.Path, field: str, value: object, said: str):
    describe(folder, XLM_R_LARGE_VIT_H_14, **{field: value})
    with pytest.raises(PeaError, match=rf"{open_clip.CONFIG}: .*{said}"):
        open_open_clip_vision(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"text_cfg": TEXT | {"hf_pooler_type": "cls_pooler"}},
            "text_cfg.hf_pooler_type: 'cls_pooler' is not supported",
        ),
        ({"text_cfg": TEXT | {"hf_proj_type": "conv"}}, "text_cfg.hf_proj_type: 'conv' is not supported"),
        ({"text_cfg": {"width": 512}}, "not open_clip's config of a text encoder from the Hub"),
        ({"text_cfg": TEXT | {"proj": "linear"}}, "open_clip_pytorch_model.bin: no text.proj.weight"),
        ({"embed_dim": None}, "projection_dim=None must be a whole number"),
    ],
)
def test_other_joins_are_refused(folder: pathlib.Path, changes: dict, said: str):
    describe(folder, XLM_R_LARGE_VIT_H_14 | changes)
    with pytest.raises(PeaError, match=said):
        open_open_clip_vision(folder)


def test_a_model_that_looks_at_nothing_is_refused(folder: pathlib.Path):
    (folder / open_clip.CONFIG).write_text(json.dumps({"text_cfg": TEXT}))
    with pytest.raises(PeaError, match=f"{open_clip.CONFIG}: no vision_cfg in it"):
        open_open_clip_vision(folder)


def test_texts_may_be_left_as_they_are(folder: pathlib.Path):
    """open_clip's Identity, where both vectors are as wide."""
    describe(folder, XLM_R_LARGE_VIT_H_14 | {"text_cfg": TEXT | {"hf_proj_type": None}})
    path = folder / "open_clip_pytorch_model.bin"
    torch.save({name: x for name, x in torch.load(path).items() if not name.startswith("text.proj.")}, path)
    assert open_open_clip_vision(folder).heads.text_projections == ()
