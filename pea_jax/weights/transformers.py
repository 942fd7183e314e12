"""Loads text encoders from transformers folders."""

import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.diffusers import read_config
from pea_jax.weights.quantised import dequantise_all
from pea_jax.weights.torch_names import StoredArray, fill

STEM, QUANTISED_STEM = "model", "model_q4"
# Of the file but not of the encoder: buffers that old versions saved, the pooler, and heads for other tasks.
IGNORED = re.compile(r"embeddings\.(position|token_type)_ids|pooler\..*|cls\..*")
# Files converted from TensorFlow name the two halves of a LayerNorm so.
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def load_clip_text(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> CLIPText:
    """The CLIP text encoder saved in `folder/subfolder`.

    It has a projection if `architectures` in its `config.json` names CLIPTextModelWithProjection.

    Args:
      folder: a transformers folder, or a diffusers folder with `subfolder` in it.
      subfolder: "text_encoder", say.
      dtype: of storage and computation.
      mesh: where the parameters are placed, by `mesh.frozen_sharding`; by default on the default device.

    Raises:
      PeaError: if a file is missing or broken, or a config field or a tensor is not what this network has.
    """
    folder = pathlib.Path(folder) / subfolder
    build = read_config(folder, _clip_text)
    model = nnx.eval_shape(lambda: build(dtype=dtype, param_dtype=dtype))
    source, tensors = _open(folder, prefix="text_model.")
    return fill(model, tensors, source=source, mesh=mesh)


def load_bert(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> Bert:
    """The BERT encoder saved in `folder/subfolder`, its 4-bit weights unpacked; arguments and errors as for
    `load_clip_text`. Pooler and task heads are passed over."""
    folder = pathlib.Path(folder) / subfolder
    config = read_config(folder, BertConfig.from_dict)
    model = nnx.eval_shape(lambda: Bert(config, dtype=dtype, param_dtype=dtype))
    source, tensors = _open(folder, prefix="bert.")
    return fill(model, tensors, source=source, mesh=mesh)


def _clip_text(config: Mapping[str, Any]) -> functools.partial[CLIPText]:
    with_projection = "CLIPTextModelWithProjection" in config.get("architectures", ())
    return functools.partial(CLIPText, CLIPTextConfig.from_dict(config), with_projection)


def _open(folder: pathlib.Path, *, prefix: str) -> tuple[str, dict[str, StoredArray]]:
    """Path and tensors of the checkpoint, by the names that the encoder has for itself."""
    quantised = not (folder / f"{STEM}.safetensors").exists() and (folder / f"{QUANTISED_STEM}.safetensors").exists()
    path, stored = open_checkpoint(folder, QUANTISED_STEM if quantised else STEM)
    tensors = {_current_name(name, prefix): tensor for name, tensor in dequantise_all(stored, source=str(path)).items()}
    return str(path), {name: tensor for name, tensor in tensors.items() if not IGNORED.fullmatch(name)}


def _current_name(name: str, prefix: str) -> str:
    name = name.removeprefix(prefix)
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name
