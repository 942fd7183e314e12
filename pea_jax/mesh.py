"""Devices: a named mesh, and where batches and trained parameters live on it."""

import collections
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pea_jax.errors import PeaError

AXES = ("data", "fsdp")
# By platform. For GPUs the compiler of jax 0.10.2 makes one Triton kernel of a normalisation and of the concatenation
# before it, as in every up-block of a UNet, and then cannot write that kernel: "'scf.if' op along control flow edge".
_ALWAYS: dict[str, dict[str, Any]] = {"gpu": dict(xla_disable_hlo_passes="triton-softmax-rewriter")}
# By platform or kind of TPU: that parameters are received while the chip computes. A v5e does so by itself; nothing is
# known for a v5p. What makes the others do as a v5e, `xla_tpu_enable_async_collective_fusion_fuse_all_gather`, is
# refused by libtpu 0.0.48, which warns of wrong results.
_RECEIVING: dict[str, dict[str, Any]] = {
    "TPU v4": dict(xla_enable_async_all_gather="true"),
    "TPU v6 lite": dict(xla_tpu_enable_sparse_core_collective_offload_all_gather=True),
    "gpu": dict(xla_gpu_enable_latency_hiding_scheduler=True),
}


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes `data` and `fsdp` over all devices, or those given; -1 for one of them: what the other leaves.

    Where the devices are of several hosts or slices, with slow links between, as much of `fsdp` as fits stays inside of
    one: its parameters are gathered in every layer, while over `data` only the adapter's gradient is added up.

    Raises:
      PeaError: the product of both is not the number of devices, or the hosts cannot share them evenly.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if data == -1:
        data = count // max(fsdp, 1)
    elif fsdp == -1:
        fsdp = count // max(data, 1)
    if data * fsdp != count or data < 1:
        raise PeaError(f"mesh: data={data} x fsdp={fsdp} does not cover {count} devices; use -1 for one of them")
    hosts = collections.Counter(getattr(device, linked_by(devices), 0) for device in devices)
    if len(hosts) == 1:
        # jax.make_mesh would refuse what splits a side of a TPU slice, such as 4 chips of the 8 of v6e:8x8.
        grid = mesh_utils.create_device_mesh((data, fsdp), devices, allow_split_physical_axes=True)
    else:
        grid = _over_hosts(data, fsdp, devices, list(hosts.values()))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def make_mesh_for(batch_size: int, data: int = -1, fsdp: int = 1, *, microbatches: int = 1) -> Mesh:
    """The mesh on which batches of that many samples are trained on, in so many parts.

    Of CPU cores, which are devices by number only, as many as can share a part.

    Raises:
      PeaError: as `make_mesh`, or the devices cannot share a part.
    """
    part = batch_size // microbatches
    devices = jax.devices()
    if devices[0].platform == "cpu" and jax.process_count() == 1 and -1 in (data, fsdp):
        sharing = (n for n in range(len(devices), 1, -1) if part % n == 0 and n % max(data, fsdp, 1) == 0)
        devices = devices[: next(sharing, max(data, fsdp, 1))]
    mesh = make_mesh(data, fsdp, devices)
    if part % mesh.size:
        parts = f" in {microbatches} microbatches" if microbatches > 1 else ""
        raise PeaError(f"config.batch_size={batch_size}{parts} must be a multiple of the {mesh.size} devices")
    return mesh


def _over_hosts(data: int, fsdp: int, devices: Sequence[jax.Device], sizes: list[int]) -> np.ndarray:
    size = min(sizes)
    inner = size // math.gcd(fsdp, size), math.gcd(fsdp, size)
    if data % inner[0] or set(sizes) != {size}:
        each = ", ".join(map(str, sizes))
        raise PeaError(f"mesh: data={data} x fsdp={fsdp} cannot be shared by hosts with {each} devices; change fsdp")
    return mesh_utils.create_hybrid_device_mesh(
        inner,
        (data // inner[0], fsdp // inner[1]),
        devices,
        process_is_granule=linked_by(devices) == "process_index",
        allow_split_physical_axes=True,
    )


def linked_by(devices: Sequence[jax.Device]) -> str:
    """What devices with fast links between have in common: the slice of TPUs, the host of GPUs, else the process."""
    slices = {getattr(device, "slice_index", None) for device in devices}
    return "slice_index" if len(slices) > 1 or devices[0].platform == "tpu" else "process_index"


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device in full: the adapter, its optimizer, small frozen arrays."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def gather(tree, mesh: Mesh | None):
    """Inside a jitted step: the frozen parameters whole on every device, for use beside a split batch."""
    if not _splits_parameters(mesh):
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, replicated(mesh)), tree)


def gathering(mesh: Mesh | None) -> Callable | None:
    """`gather` for each layer's own parameters; None where they are whole already."""
    return functools.partial(gather, mesh=mesh) if _splits_parameters(mesh) else None


def compiler_options(mesh: Mesh | None) -> dict[str, Any]:
    """For a program with a UNet in it.

    Where it gathers parameters in every layer its devices are told to compute while they receive.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    options = dict(_ALWAYS.get(platform, {}))
    if _splits_parameters(mesh):
        options |= _RECEIVING.get(mesh.devices.flat[0].device_kind, _RECEIVING.get(platform, {}))
    return options


def _splits_parameters(mesh: Mesh | None) -> TypeGuard[Mesh]:
    return mesh is not None and mesh.shape["fsdp"] > 1


def put_batch(batch, mesh: Mesh):
    """This process's rows of a batch of numpy arrays, as global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    with jax.transfer_guard_host_to_device("allow"):  # it is what is asked for here
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
