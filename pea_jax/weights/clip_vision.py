"""Loads the picture half of a CLIP, and what joins both halves, from transformers folders."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from pea_jax.models.layers import abstract
from pea_jax.weights.config_files import read_config
from pea_jax.weights.text_files import open_tensors
from pea_jax.weights.torch_names import fill

TEXT_HALF = r"text_model\..*|text_projection\..*|logit_scale"
# transformers 5 saves AltCLIP's layers under the names of BERT's.
NEW_NAME = "encoder.layer.", "encoder.layers."
POOLER = "text_model.pooler.dense"
# `projection_dim` of configs that do not state it, by their `model_type`.
PROJECTION_DIMS = {"altclip": 768}


@dataclasses.dataclass(frozen=True)
class Heads:
    """What makes one vector of a text, and of two vectors a score.

    `text_projection` is `[D, P]`; `pooler`, a kernel `[D, D]` and a bias `[D]`, is there in some files of BERTs.
    """

    text_projection: np.ndarray
    pooler: tuple[np.ndarray, np.ndarray] | None
    logit_scale: float


def load_clip_vision(
    folder: str | pathlib.Path, *, dtype: jax.typing.DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> CLIPVision:
    """The picture encoder of a folder that holds both halves, with its projection.

    Args:
      folder: one whose config.json has a `vision_config`.
      dtype: of storage and computation.
      mesh: on each of whose devices the parameters are placed, whole; by default on the default device.

    Raises:
      PeaError: if a file is missing or broken, or the picture encoder is another network than CLIP's ViT.
    """
    folder = pathlib.Path(folder)
    config = read_config(folder, vision_config)
    model = abstract(lambda: CLIPVision(config, dtype=dtype, param_dtype=dtype))
    # Where the whole was built of two models, their own prefix comes on top.
    source, tensors = open_tensors(folder, prefix=r"(vision_model\.)+", ignored=TEXT_HALF)
    tensors = {name.replace(*NEW_NAME): tensor for name, tensor in tensors.items()}
    return fill(model, tensors, source=source, mesh=mesh, partition=lambda name, shape: PartitionSpec())


def vision_config(config: Mapping[str, Any]) -> CLIPVisionConfig:
    """The picture half in the `config.json` of a model of texts and pictures.

    Raises:
      PeaError: if there is none, or a field is not what the network has.
    """
    if not isinstance(vision := config.get("vision_config"), Mapping):
        raise PeaError("no vision_config in it: there is nothing that looks at pictures")
    # Old files state what departs from the defaults again, in a second place that transformers believes.
    fields = {**vision, **(config.get("vision_config_dict") or {})}
    usual = PROJECTION_DIMS.get(str(config.get("model_type")), CLIPVisionConfig.projection_dim)
    return CLIPVisionConfig.from_dict({**fields, "projection_dim": config.get("projection_dim", usual)})


def load_heads(folder: str | pathlib.Path) -> Heads:
    """Projection and pooler of the texts, and the scale of the scores.

    Raises:
      PeaError: if the file has no projection or no scale.
    """
    source, tensors = open_tensors(pathlib.Path(folder))
    arrays = {
        name: np.asarray(tensors[name][(slice(None),) * len(tensors[name].shape)], np.float32)
        for name in ("text_projection.weight", f"{POOLER}.weight", f"{POOLER}.bias", "logit_scale")
        if name in tensors
    }
    for name in ("text_projection.weight", "logit_scale"):
        if name not in arrays:
            raise PeaError(f"{source}: no {name}; is this a model of both texts and pictures?")
    weight, bias = arrays.get(f"{POOLER}.weight"), arrays.get(f"{POOLER}.bias")
    pooler = None if weight is None or bias is None else (weight.T, bias)
    return Heads(arrays["text_projection.weight"].T, pooler, float(np.exp(arrays["logit_scale"]).reshape(())))
