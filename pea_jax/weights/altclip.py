"""Loads the text encoder of AltCLIP, AltCLIP-m9 and AltCLIP-m18 from transformers folders."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pea_jax.models.altclip import AltCLIPText, AltCLIPTextConfig
from pea_jax.models.layers import abstract
from pea_jax.weights.config_files import read_config
from pea_jax.weights.text_files import VISION, open_tensors, text_config
from pea_jax.weights.torch_names import fill

# The text half of the whole model has one more projection, of the pooled state.
OTHER_HALF = rf"{VISION}|text_projection\..*"
# transformers 5 saves the text encoder alone under a new name.
NEW_NAME = "roberta.encoder.layers.", "roberta.encoder.layer."
# XLM-R's pooler, and a second projection, of the last layer but one, which FlagAI's `modeling_berts_m18.py` has for
# AltDiffusion and `AltCLIPTextModel` has not.
UNUSED = r"roberta\.pooler\..*|transformation_pre\..*"


def load_altclip(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> AltCLIPText:
    """The text encoder saved in `folder/subfolder`, alone or as a half of the whole model; arguments and errors as for
    `transformers.load_clip_text`."""
    folder = pathlib.Path(folder) / subfolder
    config, ignored = read_config(folder, _altclip)
    model = abstract(lambda: AltCLIPText(config, dtype=dtype, param_dtype=dtype))
    source, tensors = open_tensors(folder, prefix=r"text_model\.", ignored=ignored)
    current = {name.replace(*NEW_NAME): tensor for name, tensor in tensors.items()}
    return fill(model, current, source=source, mesh=mesh)


def _altclip(config: Mapping[str, Any]) -> tuple[AltCLIPTextConfig, str]:
    """The config of the network, and what else is in the file."""
    if "text_config" in config:
        return AltCLIPTextConfig.from_dict(text_config(config)), f"{UNUSED}|{OTHER_HALF}"
    return AltCLIPTextConfig.from_dict(config), UNUSED
