"""Parameter trees by the names and in the layouts of PyTorch.

Modules are named after the PyTorch checkpoint, so only the last part of a path needs a rule:

| NNX | PyTorch | layout |
|---|---|---|
| `kernel`, 4 axes | `weight` | 3x3 convolution: `[h, w, in, out]` from `[out, in, h, w]` |
| `kernel`, 2 axes | `weight` | Flax's own linear layer, of the adapter: `[in, out]` from `[out, in]` |
| `scale`, `embedding` | `weight` | as it is |
| anything else, `weight` among it | the same | as it is |
"""

import collections
import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pea_jax.errors import PeaError
from pea_jax.partition import frozen_sharding
from pea_jax.weights.abstract import values_left_out
from pea_jax.weights.safetensors_files import Scratch, StoredTensor, aligned
from pea_jax.weights.stored import StoredArray

Model = TypeVar("Model", bound=nnx.Module)
PartitionRule = Callable[[str, tuple[int, ...]], PartitionSpec]

READERS = 4  # threads that read parameters and hand them to the devices
WORTH_A_PROGRAM = 48 << 20  # bytes of all parameters of a shape; fewer are cast sooner than a program is compiled

# For each number of axes of a kernel: the PyTorch axis that becomes each of ours.
KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}


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
    """The abstract `model` (from `layers.abstract`) with the values of `tensors`, every one of which must be used.

    Args:
      model: gives names, shapes and the dtype that each parameter is stored as; returned as a new module.
      tensors: by PyTorch name, in PyTorch layout.
      source: where they come from, for error messages.
      mesh: where they are placed; by default on the default device.
      partition: `(dotted path, shape) -> PartitionSpec` of a parameter on `mesh`; by default by `frozen_sharding`.

    Within `without_values` the arrays stay abstract, and `tensors` is not looked at.

    Raises:
      PeaError: naming the missing and the unexpected tensors and those of wrong shape or dtype.
    """
    graphdef, state = nnx.split(model)
    flat_state = nnx.to_flat_state(state)
    shardings = [_sharding(path, variable, mesh, partition) for path, variable in flat_state]
    if values_left_out():
        placed = [
            (path, variable.replace(jax.ShapeDtypeStruct(variable.shape, variable.dtype, sharding=sharding)))
            for (path, variable), sharding in zip(flat_state, shardings, strict=True)
        ]
        return nnx.merge(graphdef, nnx.from_flat_state(placed))
    if problems := _problems({torch_name(path): (path, variable) for path, variable in flat_state}, tensors):
        advice = "check that config.json and weights belong together"
        raise PeaError(f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}; {advice}")
    paths, variables = zip(*flat_state, strict=True)
    chosen = [tensors[torch_name(path)] for path in paths]
    place = functools.partial(_place, Scratch(), _shapes_on_device(chosen))
    with ThreadPoolExecutor(READERS) as pool:
        arrays = pool.map(place, chosen, paths, variables, shardings)
        filled = [(path, variable.replace(array)) for (path, variable), array in zip(flat_state, arrays, strict=True)]
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
    path: tuple[Any, ...], variable: Any, mesh: Mesh | None, partition: PartitionRule | None
) -> jax.sharding.Sharding:
    if mesh is None:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    name = ".".join(map(str, path))
    if partition is None:
        return frozen_sharding(mesh, name, variable.shape, variable.dtype)
    return NamedSharding(mesh, partition(name, variable.shape))


def _shapes_on_device(tensors: Iterable[StoredArray]) -> set[tuple[int, ...]]:
    """Shapes of tensors that the device transposes and casts; for each a program is compiled."""
    total = collections.Counter[tuple[int, ...]]()
    for tensor in tensors:
        total[tuple(tensor.shape)] += math.prod(tensor.shape) * tensor.dtype.itemsize
    return {shape for shape, size in total.items() if size >= WORTH_A_PROGRAM}


def _place(
    scratch: Scratch,
    on_device: Collection[tuple[int, ...]],
    tensor: StoredArray,
    path: tuple[Any, ...],
    variable: Any,
    sharding: jax.sharding.Sharding,
) -> jax.Array:
    """Reads only the parts of `tensor` that the devices of this process hold, each part once."""
    axes = torch_axes(path, variable.ndim)
    as_stored = (axes, tensor.dtype) == (tuple(range(len(axes))), variable.dtype)
    convert = _converted_on_device if tuple(tensor.shape) in on_device else _converted
    parts: dict[str, np.ndarray | jax.Array] = {}
    placed = []
    for device, index in sharding.addressable_devices_indices_map(variable.shape).items():
        assert index is not None, "a parameter is never without a place"
        if str(index) not in parts:
            asked = tuple(index[axis] for axis in np.argsort(axes))
            if as_stored:
                parts[str(index)] = _owned(tensor, asked)
            else:
                parts[str(index)] = convert(_scratched(tensor, asked, scratch), axes, variable.dtype, device)
        placed.append(jax.device_put(parts[str(index)], device))
    # Nothing is left to run: what is still in its torch layout may not pile up.
    return jax.block_until_ready(jax.make_array_from_single_device_arrays(variable.shape, sharding, placed))


def _owned(tensor: StoredArray, index: tuple[slice, ...]) -> np.ndarray:
    """In memory of its own: JAX keeps what it is given."""
    return tensor[index] if isinstance(tensor, StoredTensor) else tensor[index].copy()


def _scratched(tensor: StoredArray, index: tuple[slice, ...], scratch: Scratch) -> np.ndarray:
    """In memory that the next call uses again."""
    return tensor.read(index, scratch.take) if isinstance(tensor, StoredTensor) else tensor[index]


def _converted(values: np.ndarray, axes: tuple[int, ...], dtype: np.dtype, _: jax.Device) -> np.ndarray:
    """Transposed and cast, at an address where JAX takes it without a copy."""
    transposed = np.ascontiguousarray(values.transpose(axes))  # NumPy's cast takes twice as long where it also moves
    result = aligned(transposed.size * dtype.itemsize).view(dtype).reshape(transposed.shape)
    np.copyto(result, transposed, casting="unsafe")
    return result


def _converted_on_device(values: np.ndarray, axes: tuple[int, ...], dtype: np.dtype, device: jax.Device) -> jax.Array:
    return jax.block_until_ready(_convert(jax.device_put(values, device), axes, dtype))


@functools.partial(jax.jit, static_argnames=("axes", "dtype"))
def _convert(values: jax.Array, axes: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    return values.transpose(axes).astype(dtype)
