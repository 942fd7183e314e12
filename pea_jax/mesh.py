"""Devices: a named mesh, and where batches, frozen and trained parameters live on it."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pea_jax.errors import PeaError

AXES = ("data", "fsdp")
SMALLEST_SHARDED = 4 * 2**20  # bytes; gathering a smaller array costs more than keeping it everywhere


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes `data` and `fsdp` over all devices, or those given; -1 for one of them: what the other leaves.

    Raises:
      PeaError: the product of both is not the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    if data == -1:
        data = count // fsdp
    elif fsdp == -1:
        fsdp = count // data
    if data * fsdp != count:
        raise PeaError(f"mesh: data={data} x fsdp={fsdp} does not cover {count} devices; use -1 for one of them")
    return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device in full: the adapter, its optimizer, small frozen arrays."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def frozen_sharding(mesh: Mesh, shape: tuple[int, ...], dtype: np.dtype) -> NamedSharding:
    """The largest axis that `fsdp` divides is split; arrays under 4 MB stay whole."""
    size = mesh.shape["fsdp"]
    divisible = [axis for axis, length in enumerate(shape) if length % size == 0]
    if size == 1 or not divisible or math.prod(shape) * np.dtype(dtype).itemsize < SMALLEST_SHARDED:
        return replicated(mesh)
    axis = max(divisible, key=lambda a: shape[a])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))


def shard_frozen(tree, mesh: Mesh):
    """Frozen parameters, each placed by `frozen_sharding`."""
    return jax.tree.map(lambda x: jax.device_put(x, frozen_sharding(mesh, x.shape, x.dtype)), tree)


def gather(tree, mesh: Mesh):
    """Inside a jitted step: the frozen parameters whole on every device, for use beside a split batch."""
    if mesh.shape["fsdp"] == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, replicated(mesh)), tree)


def put_batch(batch, mesh: Mesh):
    """This process's rows of a batch of numpy arrays, as global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
