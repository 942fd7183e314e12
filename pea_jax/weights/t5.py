"""Loads the encoders of T5 v1.1, mT5 and uMT5 from transformers folders."""

import pathlib

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pea_jax.models.layers import abstract
from pea_jax.models.t5 import T5Config, T5Encoder
from pea_jax.weights.config_files import read_config
from pea_jax.weights.text_files import open_tensors
from pea_jax.weights.torch_names import fill

DECODER = r"decoder\..*|lm_head\..*"
# The words have two names, of which a file has one or both.
WORDS, SAME_WORDS = "shared.weight", "encoder.embed_tokens.weight"


def load_t5(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> T5Encoder:
    """The encoder saved in `folder/subfolder`, alone or with its decoder, which is passed over; arguments and errors as
    for `transformers.load_clip_text`."""
    folder = pathlib.Path(folder) / subfolder
    config = read_config(folder, T5Config.from_dict)
    model = abstract(lambda: T5Encoder(config, dtype=dtype, param_dtype=dtype))
    source, tensors = open_tensors(folder, ignored=DECODER)
    if SAME_WORDS in tensors:
        same = tensors.pop(SAME_WORDS)
        tensors.setdefault(WORDS, same)
    return fill(model, tensors, source=source, mesh=mesh)
