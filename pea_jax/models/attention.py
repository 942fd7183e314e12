"""Scaled dot-product attention: one function for every model, and the one place where a kernel is chosen.

The kernels write no weights `[B, heads, T, S]` to memory, and save none for the backward pass. Which one runs is
decided by the devices of the mesh that the computation is traced under (`traced_for`, `jax.set_mesh`), so that a
program compiled here for a TPU gets the TPU's. Without a mesh it is the dense one, which runs everywhere.
"""

import contextlib
import functools
import re
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec

Kernel = Literal["dense", "cudnn", "splash"]
Shape = tuple[int, ...]

FEWEST_KEYS = 256  # for splash; with fewer, the dense weights are small, and padding to 128 costs more than it saves

# GPUs for which cuDNN has no flash attention; those of the "Tesla" series do not begin with "NVIDIA".
BEFORE_AMPERE = re.compile(r"\b(GTX|GeForce RTX 20\d\d|TITAN|Quadro|V100|T4|P\d+)\b")


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Softmax, in fp32, of the scaled products of queries and keys, times the values.

    Args:
      query: `[B, T, heads, head_dim]`.
      key, value: `[B, S, heads, head_dim]`.
      mask: boolean, broadcastable to `[B, heads, T, S]`; False hides a key.
      bias: `[1, heads, T, S]`, added to the logits.
      scale: of the products of queries and keys; by default `head_dim ** -0.5`.

    Returns:
      `[B, T, heads, head_dim]`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kernel = _kernel_on(mesh, query, key) if mask is None and bias is None else "dense"
    if kernel == "dense":
        return jax.nn.dot_product_attention(query, key, value, bias, mask, scale=scale)
    attend = functools.partial(KERNELS[kernel], scale=scale)
    if mesh.size > 1 and not _is_manual(mesh):
        # The partitioner cannot look into a kernel: each device is told to take its own rows of the batch.
        rows = PartitionSpec(mesh.axis_names)
        attend = jax.shard_map(attend, in_specs=(rows, rows, rows), out_specs=rows, check_vma=False)
    return attend(query, key, value)


def traced_for(mesh: Mesh | None) -> contextlib.AbstractContextManager[object]:
    """Within, also inside `jax.jit`, attention is traced for the devices of `mesh`."""
    return contextlib.nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def choose_kernel(device_kind: str, query: Shape, key: Shape, dtype: jax.typing.DTypeLike) -> Kernel:
    """The kernel for one device of a kind (`jax.Device.device_kind`), for attention without mask and bias.

    Args:
      query, key: `[B, T, heads, head_dim]` and `[B, S, heads, head_dim]`.
    """
    head_dim, dtype = query[-1], jnp.dtype(dtype)
    is_recent = device_kind.startswith("NVIDIA") and not BEFORE_AMPERE.search(device_kind)
    if is_recent and dtype in (jnp.bfloat16, jnp.float16):
        return "cudnn" if head_dim % 8 == 0 and head_dim <= 128 else "dense"
    if device_kind.startswith("TPU") and dtype == jnp.bfloat16:
        return "splash" if head_dim % 64 == 0 and min(query[1], key[1]) >= FEWEST_KEYS else "dense"
    return "dense"


def _kernel_on(mesh: AbstractMesh, query: jax.Array, key: jax.Array) -> Kernel:
    device = mesh.abstract_device
    if device is None or (len(query) % mesh.size and not _is_manual(mesh)):
        return "dense"
    return choose_kernel(device.device_kind, query.shape, key.shape, query.dtype)


def _is_manual(mesh: AbstractMesh) -> bool:
    """Whether this is traced inside a `shard_map` already, where arrays are one device's own."""
    return AxisType.Manual in mesh.axis_types


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array, *, scale: float | None) -> jax.Array:
    """JAX refuses to differentiate it at odd lengths (0.10.2), as if there were a bias: they are padded by one."""
    length, num_keys = query.shape[1], key.shape[1]
    query, key, value = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (query, key, value))
    y = jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=scale,
        key_value_seq_lengths=jnp.full(len(key), num_keys, jnp.int32) if num_keys % 2 else None,
        implementation="cudnn",
    )
    return y[:, :length]


def _splash(query: jax.Array, key: jax.Array, value: jax.Array, *, scale: float | None) -> jax.Array:
    from pea_jax.models.splash import splash_attention  # what it imports takes a second

    return splash_attention(query, key, value, scale=scale)


KERNELS = {"cudnn": _cudnn, "splash": _splash}
