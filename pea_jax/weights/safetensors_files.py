"""Tensors of a safetensors file, read only when and as far as they are asked for."""

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
        # Read, not mapped: pages of a mapped file count as memory of the process until all is loaded.
        file = safe_open(path, framework="numpy", backend="pread")
        return {name: StoredTensor(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise PeaError(f"{path}: not a complete safetensors file ({error}); copy or download it again") from error
