"""The picture half of a CLIP, and what joins both halves, in transformers folders."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from pea_jax.weights.config_files import read_config
from pea_jax.weights.stored import whole
from pea_jax.weights.text_files import open_tensors, own_tensors
from pea_jax.weights.vision_files import Heads, VisionFiles, logit_scale, matrices

TEXT_HALF = r"text_model\..*|text_projection\..*|logit_scale"
# transformers 5 saves AltCLIP's layers under the names of BERT's.
NEW_NAME = "encoder.layer.", "encoder.layers."
POOLER = "text_model.pooler.dense"
# `projection_dim` of configs that do not state it, by their `model_type`.
PROJECTION_DIMS = {"altclip": 768}


def open_transformers_vision(folder: pathlib.Path) -> VisionFiles:
    """The picture encoder of a folder that holds both halves, with what joins them.

    Args:
      folder: one whose config.json has a `vision_config`.

    Raises:
      PeaError: if a file is missing or broken, the picture encoder is another network than CLIP's ViT, or the file has
        no projection or no scale.
    """
    config = read_config(folder, vision_config)
    source, stored = open_tensors(folder)
    (text_projection,) = matrices(stored, ["text_projection.weight"], source=source)
    pooler = None
    if {f"{POOLER}.weight", f"{POOLER}.bias"} <= stored.keys():
        (kernel,) = matrices(stored, [f"{POOLER}.weight"], source=source)
        pooler = kernel.T, np.asarray(whole(stored[f"{POOLER}.bias"]), np.float32)
    heads = Heads((text_projection.T,), logit_scale(stored, source=source), pooler)
    # Where the whole was built of two models, their own prefix comes on top.
    tensors = own_tensors(stored, prefix=r"(vision_model\.)+", ignored=TEXT_HALF)
    current = {name.replace(*NEW_NAME): tensor for name, tensor in tensors.items()}
    return VisionFiles(CLIPVision, config, current, source, heads)


def vision_config(config: Mapping[str, Any]) -> CLIPVisionConfig:
    """The picture half in the `config.json` of a model of texts and pictures.

    Raises:
      PeaError: if there is none, or a field is not what the network has.
    """
    fields = vision_fields(config)
    usual = PROJECTION_DIMS.get(str(config.get("model_type")), CLIPVisionConfig.projection_dim)
    return CLIPVisionConfig.from_dict({**fields, "projection_dim": config.get("projection_dim", usual)})


def vision_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the picture half, as they are stated.

    Raises:
      PeaError: if there are none.
    """
    if not isinstance(vision := config.get("vision_config"), Mapping):
        raise PeaError("no vision_config in it: there is nothing that looks at pictures")
    # Old files state what departs from the defaults again, in a second place that transformers believes.
    return {**vision, **(config.get("vision_config_dict") or {})}
