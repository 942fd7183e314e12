"""Parameter trees by the names and in the layouts of PyTorch.

Modules are named after the PyTorch checkpoint, so only the last part of a path needs a rule:

| NNX | PyTorch | layout |
|---|---|---|
| `kernel`, 2 axes | `weight` | linear: `[in, out]` from `[out, in]` |
| `kernel`, 4 axes | `weight` | convolution: `[h, w, in, out]` from `[out, in, h, w]` |
| `scale`, `embedding` | `weight` | as it is |
| anything else | the same | as it is |
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pea_jax.errors import PeaError
from pea_jax.threads import in_order

Model = TypeVar("Model", bound=nnx.Module)
PartitionRule = Callable[[str, tuple[int, ...]], PartitionSpec]

READERS = min(4, os.cpu_count() or 1)  # threads that read parameters and hand them to the devices

# For each number of axes of a kernel: the PyTorch axis that becomes each of ours.
KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}


class StoredArray(Protocol):
    """What a tensor must offer: a NumPy array does, and so does one that is still in its file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray: ...


def torch_name(path: tuple[Any, ...]) -> str:
    """`('conv_in', 'kernel')` to `'conv_in.weight'`."""
    *parents, leaf = map(str, path)
    return ".".join([*parents, "weight" if leaf in ("kernel", "scale", "embedding") else leaf])


def torch_axes(path: tuple[Any, ...], ndim: int) -> tuple[int, ...]:
    """The permutation that turns a PyTorch array into ours."""
    return KERNEL_AXES[ndim] if path[-1] == "kernel" else tuple(range(ndim))


def to_torch_names(model: nnx.Module | nnx.State) -> dict[str, np.ndarray]:
    """All parameters by their PyTorch names, in PyTorch layout, bit for bit."""
    state = nnx.state(model, nnx.Param) if isinstance(model, nnx.Module) else model
    tensors = {}
    for path, variable in nnx.to_flat_state(state):
        array = np.asarray(variable[...])
        tensors[torch_name(path)] = np.ascontiguousarray(array.transpose(np.argsort(torch_axes(path, array.ndim))))
    return tensors


def fill(
    model: Model,
    tensors: Mapping[str, StoredArray],
    *,
    source: str,
    mesh: Mesh | None = None,
    partition: PartitionRule | None = None,
) -> Model:
    """The abstract `model` (from `nnx.eval_shape`) with the values of `tensors`, every one of which must be used.

    Args:
      model: gives names, shapes and the dtype that each parameter is stored as; returned as a new module.
      tensors: by PyTorch name, in PyTorch layout.
      source: where they come from, for error messages.
      mesh: where they are placed; by default on the default device.
      partition: `(dotted path, shape) -> PartitionSpec` of a parameter on `mesh`; by default replicated.

    Raises:
      PeaError: naming the missing and the unexpected tensors and those of wrong shape or dtype.
    """
    graphdef, state = nnx.split(model)
    flat_state = nnx.to_flat_state(state)
    if problems := _problems({torch_name(path): (path, variable) for path, variable in flat_state}, tensors):
        advice = "check that config.json and weights belong together"
        raise PeaError(f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}; {advice}")
    placing = (
        functools.partial(
            _place, tensors[torch_name(path)], path, variable, _sharding(path, variable.shape, mesh, partition)
        )
        for path, variable in flat_state
    )
    # Cast here rather than in the threads, so that all processes of a pod run it in the same order.
    filled = [
        (path, variable.replace(array.astype(variable.dtype)))
        for (path, variable), array in zip(flat_state, in_order(placing, READERS), strict=True)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def _problems(expected: dict[str, tuple[Any, Any]], tensors: Mapping[str, StoredArray]) -> list[str]:
    shapes, dtypes = [], []
    for name in sorted(expected.keys() & tensors.keys()):
        path, variable = expected[name]
        shape, dtype = tuple(tensors[name].shape), tensors[name].dtype
        wanted = tuple(variable.shape[axis] for axis in np.argsort(torch_axes(path, variable.ndim)))
        if shape != wanted:
            shapes.append(f"{name} is {list(shape)}, must be {list(wanted)}")
        if not jnp.issubdtype(dtype, jnp.floating):
            dtypes.append(f"{name} is {dtype}, must be floating")
    return [
        *_listed("missing", sorted(expected.keys() - tensors.keys())),
        *_listed("unexpected", sorted(tensors.keys() - expected.keys())),
        *_listed("of wrong shape", shapes),
        *_listed("of wrong dtype", dtypes),
    ]


def _listed(kind: str, entries: list[str], shown: int = 8) -> list[str]:
    """One text for all entries of a kind, cut short: the wrong file has thousands."""
    if not entries:
        return []
    more = f", and {len(entries) - shown} more" if len(entries) > shown else ""
    return [f"{len(entries)} {kind} ({', '.join(entries[:shown])}{more})"]


def _sharding(
    path: tuple[Any, ...], shape: tuple[int, ...], mesh: Mesh | None, partition: PartitionRule | None
) -> jax.sharding.Sharding:
    if mesh is None:
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])
    spec = PartitionSpec() if partition is None else partition(".".join(map(str, path)), shape)
    return NamedSharding(mesh, spec)


def _place(tensor: StoredArray, path: tuple[Any, ...], variable: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Reads only the parts of `tensor` that the devices of this process hold; wider dtypes are left to cast."""
    axes = torch_axes(path, variable.ndim)
    narrows = variable.dtype.itemsize < tensor.dtype.itemsize

    def read(index: Any) -> np.ndarray:
        values = tensor[tuple(index[axis] for axis in np.argsort(axes))]
        # JAX transposes while it copies, the faster the fewer bytes: what narrows is cast before, the rest after.
        values = (values.astype(variable.dtype) if narrows else values).transpose(axes)
        shared = values.flags.c_contiguous and values.dtype == variable.dtype  # JAX might keep the memory of the caller
        return values.copy() if shared else values

    return jax.make_array_from_callback(variable.shape, sharding, read)
