"""Tensors that may still be in their file."""

from typing import Protocol

import numpy as np


class StoredArray(Protocol):
    """What a tensor must offer: a NumPy array does, and so does one that is still in its file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray: ...


def whole(tensor: StoredArray) -> np.ndarray:
    """All of it."""
    return tensor[(slice(None),) * len(tensor.shape)]
