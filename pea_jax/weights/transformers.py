"""Loads text encoders from transformers folders."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.models.layers import abstract
from pea_jax.weights.config_files import read_config
from pea_jax.weights.model_files import open_single_file
from pea_jax.weights.text_files import BERT_HEADS, VISION, open_tensors, own_tensors, text_config
from pea_jax.weights.torch_names import fill


def load_clip_text(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    config: str | pathlib.Path | None = None,
) -> CLIPText:
    """The text encoder of CLIP or MetaCLIP 2 saved in `folder/subfolder`, alone or as the text half of the whole model.

    It has a projection unless `architectures` in its `config.json` names CLIPTextModel or MetaClip2TextModel.

    Args:
      folder: a transformers folder, a diffusers folder with `subfolder` in it, or a checkpoint in one file.
      subfolder: "text_encoder", say.
      dtype: of storage and computation.
      mesh: where the parameters are placed, by `partition.frozen_sharding`; by default on the default device.
      config: for a checkpoint in one file, as for `load_unet`.

    Raises:
      PeaError: if a file is missing or broken, or a config field or a tensor is not what this network has.
    """
    path, prefix = pathlib.Path(folder), r"text_model\."
    if path.is_file():
        (build, ignored), _, stored, source = open_single_file(path, subfolder, _clip_text, config)
        tensors = own_tensors(stored, prefix, ignored)
    else:
        build, ignored = read_config(path / subfolder, _clip_text)
        source, tensors = open_tensors(path / subfolder, prefix=prefix, ignored=ignored)
    model = abstract(lambda: build(dtype=dtype, param_dtype=dtype))
    return fill(model, tensors, source=source, mesh=mesh)


def load_bert(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> Bert:
    """The encoder of BERT, RoBERTa or XLM-R saved in `folder/subfolder`, its 4-bit weights unpacked; arguments and
    errors as for `load_clip_text`. Pooler and task heads are passed over."""
    folder = pathlib.Path(folder) / subfolder
    config = read_config(folder, BertConfig.from_dict)
    model = abstract(lambda: Bert(config, dtype=dtype, param_dtype=dtype))
    source, tensors = open_tensors(folder, prefix=r"(bert|roberta)\.", ignored=BERT_HEADS)
    return fill(model, tensors, source=source, mesh=mesh)


def _clip_text(config: Mapping[str, Any]) -> tuple[functools.partial[CLIPText], str]:
    """What builds the network, and what else is in the file."""
    is_whole = "text_config" in config
    if is_whole:
        fields = text_config(config) | {"projection_dim": config.get("projection_dim", CLIPTextConfig.projection_dim)}
        fields.setdefault("model_type", config.get("model_type"))
    else:
        fields = dict(config)
    with_projection = is_whole or any(name.endswith("WithProjection") for name in config.get("architectures") or ())
    return functools.partial(CLIPText, CLIPTextConfig.from_dict(fields), with_projection), VISION if is_whole else ""
