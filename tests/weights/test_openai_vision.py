"""The picture half of ruCLIP and cn_clip: published sizes, and what is wrong; numbers are in judging/test_clip.py."""

import pathlib

import pytest
import torch
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from pea_jax.weights.openai_vision import config_from_shapes, open_cn_clip_vision, open_ruclip_vision, vision_tensors
from tests.judging import published_clips
from tests.language_clips import rewrite, shapes
from tests.openai_clips import VisionTransformer

# Of cn_clip/clip/model_configs in OFA-Sys/Chinese-CLIP: width, layers, patch, side, projection, width of a head.
PUBLISHED = {
    "ViT-B-16": (768, 12, 16, 224, 512, 64),
    "ViT-L-14": (1024, 24, 14, 224, 768, 64),
    "ViT-L-14-336": (1024, 24, 14, 336, 768, 64),
    "ViT-H-14": (1280, 32, 14, 224, 1024, 80),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_sizes(name: str):
    """The published configuration is found from the shapes; every parameter has its place, and none is left over."""
    width, layers, patch, side, projection, head = PUBLISHED[name]
    with torch.device("meta"):
        module = VisionTransformer(
            width=width, heads=width // head, layers=layers, side=side, patch=patch, projection=projection
        )
    stored = {f"visual.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors = vision_tensors(stored, source="test")
    config = config_from_shapes(tensors, source="test")
    assert config == CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_attention_heads=width // head, num_hidden_layers=layers,
        image_size=side, patch_size=patch, projection_dim=projection,
    )  # fmt: skip
    assert shapes(nnx.eval_shape(lambda: CLIPVision(config))) == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }


def change(path: pathlib.Path, prefix: str = "", **changes: torch.Tensor | None) -> None:
    """Tensors of a file replaced, or taken away."""
    content = torch.load(path)
    tensors = content.get("state_dict", content)
    for name, value in changes.items():
        name = prefix + name.replace("__", ".")
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    torch.save(content, path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(text_projection=None), "no text_projection; is this a model of both texts and pictures"),
        (dict(text_projection=torch.zeros(3)), r"text_projection is \[3\], must be a matrix"),
        (dict(logit_scale=None), "no logit_scale"),
        (dict(logit_scale=torch.zeros(2)), r"logit_scale is \[2\], must be one number"),
        (dict(visual__proj=None), "not a ViT under visual. .no visual_projection.weight"),
        (dict(visual__conv1__weight=torch.zeros(128, 3)), "no embeddings.patch_embedding.weight"),
        (dict(visual__conv1__weight=torch.zeros(197, 3, 4, 4)), "hidden_size=197"),
        (
            dict(visual__layer1__0__conv1__weight=torch.zeros(1)),
            "is a ResNet .visual.layer1.0.conv1.weight.*take a ViT",
        ),
    ],
)
def test_what_is_wrong_with_a_cn_clip_checkpoint_is_named(tmp_path: pathlib.Path, changes: dict, said: str):
    published_clips.save(tmp_path, "cn_clip")
    (path,) = tmp_path.glob("*.pt")
    change(path, "module.", **changes)
    with pytest.raises(PeaError, match=rf"{path.name}: .*{said}"):
        open_cn_clip_vision(tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(vision_layers=[3, 4, 6, 3]), r"vision_layers=\[3, 4, 6, 3\] is a ResNet"),
        (dict(vision_width="128"), "config.json: "),
        (dict(vision_width=60), "config.json: num_attention_heads=0"),
        (dict(image_resolution=2), "config.json: patch_size=4 is larger than image_size=2"),
    ],
)
def test_what_is_wrong_with_a_ruclip_config_is_named(tmp_path: pathlib.Path, fields: dict, said: str):
    published_clips.save(tmp_path, "ruCLIP")
    rewrite(tmp_path, **fields)
    with pytest.raises(PeaError, match=said):
        open_ruclip_vision(tmp_path)


def test_a_ruclip_file_without_pictures_is_refused(tmp_path: pathlib.Path):
    published_clips.save(tmp_path, "ruCLIP")
    path = tmp_path / "pytorch_model.bin"
    torch.save({name: x for name, x in torch.load(path).items() if not name.startswith("visual.")}, path)
    with pytest.raises(PeaError, match="pytorch_model.bin: nothing under visual."):
        open_ruclip_vision(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        PeaError, match="not the config of a ruCLIP model: no embed_dim, image_resolution, vision_layers"
    ):
        open_ruclip_vision(tmp_path)
