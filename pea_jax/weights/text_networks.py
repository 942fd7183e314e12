"""Loads the text encoders of files that transformers does not read, and of folders of two encoders."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.models.layers import abstract
from pea_jax.weights.cn_clip import open_cn_clip
from pea_jax.weights.dual_encoders import open_text_half
from pea_jax.weights.open_clip import open_open_clip
from pea_jax.weights.openai_clip import open_ruclip
from pea_jax.weights.text_files import CLIP, Build, TextFiles
from pea_jax.weights.torch_names import fill

Network = Callable[..., Bert | CLIPText]


def load_open_clip(
    folder: str | pathlib.Path, *, dtype: jax.typing.DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> Bert | CLIPText:
    """The XLM-R of an open_clip folder; arguments as for `transformers.load_bert`, errors as for `open_open_clip`."""
    return _load(open_open_clip, folder, build, dtype, mesh)


def load_cn_clip(
    folder: str | pathlib.Path, *, dtype: jax.typing.DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> Bert | CLIPText:
    """The BERT of a cn_clip checkpoint; arguments as for `transformers.load_bert`, errors as for `open_cn_clip`."""
    return _load(open_cn_clip, folder, build, dtype, mesh)


def load_ruclip(
    folder: str | pathlib.Path, *, dtype: jax.typing.DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> Bert | CLIPText:
    """The CLIP of a ruCLIP folder; arguments as for `transformers.load_clip_text`, errors as for `open_ruclip`."""
    return _load(open_ruclip, folder, functools.partial(build, with_projection=True), dtype, mesh)


def load_text_half(
    folder: str | pathlib.Path,
    *,
    positions_from_zero: bool = False,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> Bert | CLIPText:
    """The text encoder of a folder of both; the rest of the file is passed over.

    Args:
      folder: one whose config.json has a `text_config`.
      positions_from_zero: for a RoBERTa that was not trained with its own rule of positions: HybridCLIP and rinna's
        models gave it 0, 1, 2, ...
      dtype, mesh: as for `transformers.load_clip_text`.

    Raises:
      PeaError: if a file is missing or broken, or the text encoder is of another kind.
    """
    whose_positions = functools.partial(build, positions_from_zero=positions_from_zero)
    return _load(open_text_half, folder, whose_positions, dtype, mesh)


def build(
    fields: Mapping[str, Any], *, positions_from_zero: bool = False, with_projection: bool = False
) -> functools.partial[Bert] | functools.partial[CLIPText]:
    """What makes the network that the fields of a config describe; arguments and errors as for `load_text_half`."""
    if fields["model_type"] == CLIP:
        return functools.partial(CLIPText, CLIPTextConfig.from_dict(fields), with_projection)
    # A BERT is a RoBERTa whose positions are 0, 1, 2, ...
    kind = "bert" if positions_from_zero else fields["model_type"]
    return functools.partial(Bert, BertConfig.from_dict({**fields, "model_type": kind}))


def _load(
    open_files: Callable[[pathlib.Path, Build], TextFiles],
    folder: str | pathlib.Path,
    build_network: Callable[..., Network],
    dtype: jax.typing.DTypeLike,
    mesh: Mesh | None,
) -> Bert | CLIPText:
    opened = open_files(pathlib.Path(folder), build_network)
    model = abstract(lambda: opened.network(dtype=dtype, param_dtype=dtype))
    return fill(model, opened.tensors, source=opened.source, mesh=mesh)
