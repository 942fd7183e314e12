"""The picture half of ruCLIP folders and of cn_clip checkpoints: OpenAI's ViT under its own names."""

import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.cn_clip import open_cn_clip_tensors
from pea_jax.weights.config_files import read_config
from pea_jax.weights.openai_clip import VISUAL, to_transformers_vision_names
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.vision_files import Heads, VisionFiles, logit_scale, matrices

RUCLIP_FIELDS = {
    "vision_width": "hidden_size",
    "vision_layers": "num_hidden_layers",
    "vision_patch_size": "patch_size",
    "image_resolution": "image_size",
    "embed_dim": "projection_dim",
}
HEAD_DIM = 64  # a ViT-B or ViT-L; no shape tells
CN_CLIP_HEAD_DIMS = {1280: 80}  # by width; of its ViT-H
RESNET = re.compile(r"visual\.(layer\d+|attnpool)\..*")
# Each with its number of axes.
NEEDED = {
    "embeddings.patch_embedding.weight": 4,
    "embeddings.position_embedding.weight": 2,
    "encoder.layers.0.mlp.fc1.weight": 2,
    "visual_projection.weight": 2,
}


def open_ruclip_vision(folder: pathlib.Path) -> VisionFiles:
    """The picture encoder of a ruCLIP folder (`config.json`, `pytorch_model.bin`); its text encoder projects itself.

    Raises:
      PeaError: if a file is missing or broken, or the picture encoder is a ResNet.
    """
    config = read_config(folder, _ruclip_config)
    path, stored = open_checkpoint(folder, "model")
    heads = Heads((), logit_scale(stored, source=str(path)))
    return VisionFiles(CLIPVision, config, vision_tensors(stored, source=str(path)), str(path), heads)


def open_cn_clip_vision(folder: pathlib.Path) -> VisionFiles:
    """The picture encoder of the one cn_clip checkpoint in `folder`, its sizes read from the shapes.

    Raises:
      PeaError: if there is no such file or more than one, or it holds something else, such as a ResNet.
    """
    source, stored = open_cn_clip_tensors(folder)
    tensors = vision_tensors(stored, source=source)
    config = config_from_shapes(tensors, source=source)
    heads = Heads(matrices(stored, ["text_projection"], source=source), logit_scale(stored, source=source))
    return VisionFiles(CLIPVision, config, tensors, source, heads)


def vision_tensors(stored: Mapping[str, StoredArray], *, source: str) -> dict[str, StoredArray]:
    """Of a file in OpenAI's layout, the tensors of the ViT by the names of `models.clip_vision.CLIPVision`.

    Raises:
      PeaError: naming `source`, if the picture encoder is a ResNet, or there is none.
    """
    if resnet := next((name for name in stored if RESNET.fullmatch(name)), None):
        raise PeaError(f"{source}: its picture encoder is a ResNet ({resnet}), which cannot judge here; take a ViT")
    if not (tensors := to_transformers_vision_names(stored)):
        raise PeaError(f"{source}: nothing under {VISUAL}; is this a model of both texts and pictures?")
    return tensors


def config_from_shapes(tensors: Mapping[str, StoredArray], *, source: str) -> CLIPVisionConfig:
    """The config of the ViT that has tensors of these shapes, with the heads of cn_clip's models.

    Raises:
      PeaError: naming `source`, if they are not those of a ViT.
    """
    for name, axes in NEEDED.items():
        if name not in tensors or len(tensors[name].shape) != axes:
            raise PeaError(f"{source}: not a ViT under {VISUAL} (no {name}, by its name in transformers)")
    patches, positions, wide, projection = (tensors[name].shape for name in NEEDED)
    width, side = patches[0], patches[-1]
    numbered = (re.match(r"encoder\.layers\.(\d+)\.", name) for name in tensors)
    fields = dict(
        hidden_size=width,
        intermediate_size=wide[0],
        num_hidden_layers=len({match[1] for match in numbered if match}),
        num_attention_heads=max(width // CN_CLIP_HEAD_DIMS.get(width, HEAD_DIM), 1),
        patch_size=side,
        image_size=side * math.isqrt(max(positions[0] - 1, 0)),
        projection_dim=projection[0],
    )
    try:
        return CLIPVisionConfig.from_dict(fields)
    except PeaError as error:
        raise PeaError(f"{source}: {error}") from error


def _ruclip_config(config: Mapping[str, Any]) -> CLIPVisionConfig:
    if missing := sorted(RUCLIP_FIELDS.keys() - config.keys()):
        raise PeaError(f"not the config of a ruCLIP model: no {', '.join(missing)}")
    if isinstance(layers := config["vision_layers"], list):
        raise PeaError(f"vision_layers={layers} is a ResNet, which cannot judge here; take a ViT")
    fields = {ours: config[theirs] for theirs, ours in RUCLIP_FIELDS.items()}
    width = fields["hidden_size"]
    return CLIPVisionConfig.from_dict(
        {**fields, "intermediate_size": 4 * width, "num_attention_heads": width // HEAD_DIM}
    )
