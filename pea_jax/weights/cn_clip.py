"""Chinese-CLIP in its original files, `clip_cn_vit-h-14.pt` and its like, which do not say what network they hold."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.weights.pickled_files import open_pickled
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.text_files import Build, TextFiles

FILES = "clip_cn_*.pt"
PREFIX = "bert."
IGNORED = re.compile(r"bert\.pooler\..*|visual\..*|text_projection|logit_scale")
HEAD_DIM = 64  # of all published models; the one number that no shape tells
NEEDED = (
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "encoder.layer.0.intermediate.dense.weight",
)


def open_cn_clip(folder: pathlib.Path, build: Build) -> TextFiles:
    """The text encoder of the one cn_clip checkpoint in `folder`: a BERT, its sizes read from the shapes.

    The picture half and the projection are passed over.

    Raises:
      PeaError: if there is no such file or more than one, or it holds something else.
    """
    source, stored = open_cn_clip_tensors(folder)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items() if not IGNORED.fullmatch(name)}
    return TextFiles(build(fields_from_shapes(tensors, source=source)), tensors, source)


def open_cn_clip_tensors(folder: pathlib.Path) -> tuple[str, dict[str, StoredArray]]:
    """Path and tensors of the one cn_clip checkpoint in `folder`, by the names that the model had outside training.

    Raises:
      PeaError: if there is no such file or more than one, or it cannot be read.
    """
    path = checkpoint_in(folder)
    return str(path), {name.removeprefix("module."): tensor for name, tensor in open_pickled(path).items()}


def checkpoint_in(folder: pathlib.Path) -> pathlib.Path:
    """The checkpoint of a cn_clip folder.

    Raises:
      PeaError: if there is none, or more than one.
    """
    found = sorted(folder.glob(FILES))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise PeaError(f"{folder}: must hold one {FILES} (found {names})")
    return found[0]


def fields_from_shapes(tensors: Mapping[str, StoredArray], *, source: str) -> dict[str, Any]:
    """The config of the BERT that has tensors of these shapes, with heads of 64.

    Raises:
      PeaError: naming `source`, if they are not those of a BERT.
    """
    if missing := [name for name in NEEDED if name not in tensors or len(tensors[name].shape) != 2]:
        raise PeaError(f"{source}: not a Chinese-CLIP checkpoint (no {PREFIX}{missing[0]})")
    words, positions, types, wide = (tensors[name].shape for name in NEEDED)
    layers = {match[1] for match in (re.match(r"encoder\.layer\.(\d+)\.", name) for name in tensors) if match}
    return dict(
        model_type="bert",
        vocab_size=words[0],
        hidden_size=words[1],
        num_hidden_layers=len(layers),
        num_attention_heads=max(words[1] // HEAD_DIM, 1),
        intermediate_size=wide[0],
        max_position_embeddings=positions[0],
        type_vocab_size=types[0],
    )
