"""Tensors of a safetensors file, or of several behind an index, read only when and as far as they are asked for."""

import json
import pathlib
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from pea_jax.errors import PeaError

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}  # any other stands for itself as np.void, which no model takes


class StoredTensor:
    """A tensor that is still in its file; indexing reads that part of it."""

    def __init__(self, slices: Any):
        self._slices = slices
        self.shape = tuple(slices.get_shape())
        self.dtype = np.dtype(DTYPES.get(slices.get_dtype(), np.void))

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self._slices[index]


def open_safetensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name.

    Raises:
      PeaError: if the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise PeaError(f"{path}: no such file")
    try:
        file = safe_open(path, framework="numpy")
        return {name: StoredTensor(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise PeaError(f"{path}: not a complete safetensors file ({error}); copy or download it again") from error


def open_checkpoint(folder: pathlib.Path, stem: str) -> tuple[pathlib.Path, dict[str, StoredTensor]]:
    """The tensors of `folder/stem`, in one file or sharded behind an index, and the path of that file or index.

    A half-precision variant is taken only where there is nothing else.

    Raises:
      PeaError: if there is no such file, or one is not readable or does not hold what the index says.
    """
    for variant in ("", ".fp16"):
        path, index = folder / f"{stem}{variant}.safetensors", folder / f"{stem}.safetensors.index{variant}.json"
        if path.is_file():
            return path, open_safetensors(path)
        if index.is_file():
            return index, _open_shards(index)
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise PeaError(
        f"{folder}: no {stem}.safetensors (found {found}); pickled weights must be saved as safetensors first"
    )


def _open_shards(index: pathlib.Path) -> dict[str, StoredTensor]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise PeaError(f"{index}: not an index of safetensors files ({error!r})") from error
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(weight_map.values())):
        tensors.update(open_safetensors(index.parent / name))
    if wrong := sorted(weight_map.keys() ^ tensors.keys()):
        raise PeaError(f"{index}: index and files differ in {len(wrong)} tensors ({wrong[0]}); download them again")
    return tensors
