"""A text encoder's weights in its files, by the names that transformers gives the encoder alone."""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pea_jax.errors import PeaError
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.quantised import dequantise_all
from pea_jax.weights.stored import StoredArray

STEM, QUANTISED_STEM = "model", "model_q4"
# Of the file but not of the encoder: buffers that old versions saved, ...
BUFFERS = r"(.*\.)?embeddings\.(position|token_type)_ids"
# ... pooler and heads for other tasks, and of a model of texts and pictures the half for pictures.
BERT_HEADS = r"pooler\..*|cls\..*|lm_head\..*"
VISION = r"vision_model\..*|visual_projection\..*|logit_scale"
# Files converted from TensorFlow name the two halves of a LayerNorm so.
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
CLIP = "clip_text_model"  # a `model_type`, as are "bert", "roberta" and "xlm-roberta"


class TextFiles(NamedTuple):
    """A text encoder that is not built yet.

    `network` is what the reader's `build` made of the fields of its config, among them `model_type`; `tensors` and
    where they come from.
    """

    network: Any
    tensors: dict[str, StoredArray]
    source: str


Build = Callable[[Mapping[str, Any]], Any]


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the text half in the `config.json` of a model of texts and pictures.

    Raises:
      PeaError: if there are none.
    """
    if not isinstance(text := config.get("text_config"), Mapping):
        raise PeaError("no text_config in it")
    # Old files state what departs from the defaults again, in a second place that transformers believes.
    return {**text, **(config.get("text_config_dict") or {})}


def open_tensors(
    folder: pathlib.Path, *, stem: str = STEM, prefix: str = "", ignored: str = ""
) -> tuple[str, dict[str, StoredArray]]:
    """Path and tensors of the checkpoint, by the names that the encoder has for itself.

    Args:
      prefix: regular expression of what stands before those names in the file.
      ignored: regular expression of what is not the encoder's, among the names without `prefix`.
    """
    path, stored = open_checkpoint(folder, QUANTISED_STEM if is_quantised(folder, stem) else stem)
    return str(path), own_tensors(dequantise_all(stored, source=str(path)), prefix, ignored)


def is_quantised(folder: pathlib.Path, stem: str = STEM) -> bool:
    """Whether the weights are there in 4 bits alone."""
    return not (folder / f"{stem}.safetensors").exists() and (folder / f"{QUANTISED_STEM}.safetensors").exists()


def own_tensors(stored: Mapping[str, StoredArray], prefix: str, ignored: str) -> dict[str, StoredArray]:
    """Of `stored`, the tensors of the encoder; arguments as for `open_tensors`."""
    tensors = {_current_name(name, prefix): tensor for name, tensor in stored.items()}
    skipped = re.compile(f"{BUFFERS}|{ignored}" if ignored else BUFFERS)
    return {name: tensor for name, tensor in tensors.items() if not skipped.fullmatch(name)}


def _current_name(name: str, prefix: str) -> str:
    name = re.sub(f"^{prefix}", "", name)
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name
