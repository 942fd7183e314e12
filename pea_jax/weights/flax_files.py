"""Tensors of a `flax_model.msgpack`, the weights of a Flax Linen model of transformers.

Linen's modules there are named as PyTorch's; only the leaves differ (`kernel`, `scale`, `embedding`), as in NNX.
"""

import pathlib
from typing import Any

import numpy as np
from flax import serialization, traverse_util

from pea_jax.errors import PeaError
from pea_jax.weights.config_files import one_line
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.torch_names import torch_axes, torch_name


def open_flax(path: pathlib.Path) -> dict[str, StoredArray]:
    """The arrays of one file by their PyTorch names, in PyTorch layouts.

    Raises:
      PeaError: if the file is missing, truncated or no tree of arrays.
    """
    if not path.is_file():
        raise PeaError(f"{path}: no such file")
    try:
        leaves = traverse_util.flatten_dict(serialization.msgpack_restore(path.read_bytes()))
        return {torch_name(parts): _torch_layout(parts, np.asarray(leaf)) for parts, leaf in leaves.items()}
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PeaError(
            f"{path}: not a complete tree of arrays ({one_line(error)}); copy or download it again"
        ) from error


def _torch_layout(parts: tuple[Any, ...], array: np.ndarray) -> np.ndarray:
    return array.transpose(np.argsort(torch_axes(parts, array.ndim)))
