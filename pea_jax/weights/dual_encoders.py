"""The text half of folders that hold a picture encoder and a text encoder, of any kind, side by side.

Of transformers `ChineseCLIPModel` and `VisionTextDualEncoderModel` (clip-italian, koclip), of the latter's original in
Flax, `HybridCLIP`, and of rinna's Japanese `CLIPModel` and `CLOOBModel`: all keep it under `text_model.`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from pea_jax.errors import PeaError
from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.weights.diffusers import read_config
from pea_jax.weights.torch_names import fill
from pea_jax.weights.transformers import open_tensors, text_config

BERTS = ("bert", "chinese_clip_text_model", "roberta", "xlm-roberta")
CLIP = "clip_text_model"
IGNORED = r"pooler\..*|vision_model\..*|(visual|text)_projection\..*|logit_scale"


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
    folder = pathlib.Path(folder)
    network = read_config(folder, functools.partial(build, positions_from_zero=positions_from_zero))
    model = nnx.eval_shape(lambda: network(dtype=dtype, param_dtype=dtype))
    source, tensors = open_tensors(folder, prefix=r"text_model\.", ignored=IGNORED)
    return fill(model, tensors, source=source, mesh=mesh)


def build(config: Mapping[str, Any], *, positions_from_zero: bool) -> Callable[..., Bert | CLIPText]:
    """What makes the text encoder that a config.json describes; arguments and errors as for `load_text_half`."""
    fields = text_config(config)
    kind = fields.get("model_type", "chinese_clip_text_model" if config.get("model_type") == "chinese_clip" else None)
    if kind == CLIP:
        return functools.partial(CLIPText, CLIPTextConfig.from_dict(fields), False)
    if kind not in BERTS:
        raise PeaError(f"text_config.model_type={kind!r} is not supported (only {', '.join([*BERTS, CLIP])})")
    bert = BertConfig.from_dict(fields)
    return functools.partial(Bert, dataclasses.replace(bert, padding_idx=None) if positions_from_zero else bert)
