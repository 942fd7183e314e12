"""Tensors of a safetensors file, read only when and as far as they are asked for."""

import json
import math
import pathlib
import threading
from collections.abc import Callable
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
    "F8_E4M3": ml_dtypes.float8_e4m3fn,  # as some fine-tunes are shared: values of their own, without scales
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}  # any other stands for itself as np.void, which no model takes
_ALIGNMENT = 64  # bytes


class Scratch(threading.local):
    """Memory that is read into again and again, by each thread its own: new pages cost the system more than a copy."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, size: int) -> np.ndarray:
        """[size] uint8, the same memory at each call."""
        if len(self._memory) < size:
            self._memory = aligned(size)
        return self._memory[:size]


class StoredTensor:
    """A tensor that is still in its file; indexing reads the rows of it that are asked for."""

    def __init__(self, path: pathlib.Path, offset: int, shape: tuple[int, ...], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self._path, self._offset = path, offset

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.read(index)

    def read(self, index: tuple[slice, ...], take: Callable[[int], np.ndarray] | None = None) -> np.ndarray:
        """`self[index]`, in memory from `take(bytes)` where it is given."""
        first, *rest = index or (slice(None),)
        start, stop, step = first.indices(self.shape[0] if self.shape else 1)
        if step != 1:
            return self.read((slice(None), *rest), take)[first]
        count, row = max(stop - start, 0), self.shape[1:]
        size = math.prod(row) * self.dtype.itemsize
        data = (take or aligned)(count * size)
        self._fill(data, self._offset + start * size)
        values = data.view(self.dtype).reshape((count, *row) if self.shape else ())
        return values[(slice(None), *rest)] if rest else values

    def _fill(self, data: np.ndarray, offset: int) -> None:
        with open(self._path, "rb") as file:
            file.seek(offset)
            done = file.readinto(data.data)
        if done < len(data):
            raise PeaError(f"{self._path}: ends at byte {offset + done}; it was cut since it was opened")


def aligned(size: int) -> np.ndarray:
    """[size] uint8, at an address where JAX takes it without a copy."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


def open_safetensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name.

    Raises:
      PeaError: if the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise PeaError(f"{path}: no such file")
    try:
        # Only to check the header: its slices read the whole tensor each time, or map the file, and pages of a mapped
        # file count as memory of the process.
        safe_open(path, framework="numpy", backend="pread")
    except (SafetensorError, OSError) as error:
        raise PeaError(f"{path}: not a complete safetensors file ({error}); copy or download it again") from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return {name: _stored(path, 8 + length, entry) for name, entry in entries.items()}


def _stored(path: pathlib.Path, data_start: int, entry: dict[str, Any]) -> StoredTensor:
    start, _ = entry["data_offsets"]
    dtype = np.dtype(DTYPES.get(entry["dtype"], np.void))
    return StoredTensor(path, data_start + start, tuple(entry["shape"]), dtype)
