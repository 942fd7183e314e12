"""Tensors of a file that PyTorch pickled (`.bin`, `.pt`), read without executing anything in it.

PyTorch does the reading, with `weights_only=True`: it builds tensors and plain containers and refuses all else.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from pea_jax.errors import PeaError
from pea_jax.weights.stored import StoredArray

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


class PickledTensor:
    """A tensor whose values are still in the file if PyTorch could map that; indexing reads that part of it."""

    def __init__(self, tensor: Any):
        self._tensor = tensor.detach()
        self.shape = tuple(tensor.shape)
        self.dtype = _numpy_dtype(tensor)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        part = self._tensor[index].contiguous()
        if self.dtype == ml_dtypes.bfloat16:  # NumPy has none of its own for PyTorch to hand out
            return part.view(dtype=_torch().int16).numpy().view(ml_dtypes.bfloat16)
        return part.numpy()


def open_pickled(path: pathlib.Path) -> dict[str, StoredArray]:
    """The tensors of one file by name; of a training checkpoint, those in its `state_dict`.

    Args:
      path: written by `torch.save`, in today's or in the old format (the latter is read into memory whole).

    Raises:
      PeaError: the file is missing, broken, holds no state dict or anything but tensors and plain containers, or
        PyTorch is not installed.
    """
    if not path.is_file():
        raise PeaError(f"{path}: no such file")
    content = _load(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    is_tensor = _torch().is_tensor
    tensors = {str(k): v for k, v in content.items() if is_tensor(v)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise PeaError(f"{path}: holds no state dict, the dict of tensors by name that model.state_dict() gives")
    if odd := sorted(name for name, tensor in tensors.items() if not _is_plain(tensor)):
        raise PeaError(f"{path}: {odd[0]} is a sparse, quantised or empty-shell tensor; save it as a dense one")
    return {name: PickledTensor(tensor) for name, tensor in tensors.items()}


def _load(path: pathlib.Path) -> Any:
    torch = _torch(path)
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"  # only this format can be mapped
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a spoilt pickle fails anywhere in PyTorch, with any exception
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise PeaError(
                f"{path}: asks for {asked[1]}, which is more than tensors, so nothing in it was run; "
                "take the weights as safetensors, or only the state dict of the model"
            ) from error
        # Not PyTorch's own words: they advise to execute the file.
        raise PeaError(
            f"{path}: not a complete file of PyTorch tensors that can be read without running anything in it "
            f"({type(error).__name__}); download it again, or take the weights as safetensors"
        ) from error


def _is_plain(tensor: Any) -> bool:
    return tensor.layout == _torch().strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _numpy_dtype(tensor: Any) -> np.dtype:
    """As for safetensors, a dtype that no model takes is `np.void`."""
    name = str(tensor.dtype).removeprefix("torch.")
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name if name in DTYPES else np.void)


def _torch(path: pathlib.Path | None = None) -> Any:
    try:
        import torch
    except ImportError as error:
        raise PeaError(
            f"{path}: a pickled file, which takes PyTorch to read: run `pip install torch`, or convert it where there "
            "is PyTorch with safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
        ) from error
    return torch
