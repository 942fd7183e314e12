"""Attention on TPUs by JAX's splash kernel, of any length."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

LANES = 128  # of a TPU's vector register; blocks are multiples
# A step over one block takes a third of a microsecond beside its arithmetic, which for 128 x 128 is ten times more than
# that; what a block of more than 1024 needs does not fit into a chip's vector memory.
LARGEST_BLOCK, SMALLEST_BLOCK = 1024, 512


def splash_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, scale: float | None = None, interpret: bool = False
) -> jax.Array:
    """As `attention.attention` without mask and bias.

    Lengths are padded to whole blocks; what is padded has a segment of its own, which no query sees.

    Args:
      interpret: run the kernel step by step on any device, as tests do.
    """
    length, num_keys, heads = query.shape[1], key.shape[1], query.shape[2]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    queries_a_block, keys_a_block = block_size(length), block_size(num_keys)
    query = _heads_first(query * scale, queries_a_block)
    key, value = _heads_first(key, keys_a_block), _heads_first(value, keys_a_block)
    padded, padded_keys = query.shape[2], key.shape[2]
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([splash.FullMask((padded, padded_keys))] * heads),
        block_sizes=_block_sizes(queries_a_block, keys_a_block),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    hidden = (jnp.arange(padded_keys) >= num_keys).astype(jnp.int32)
    segments = splash.SegmentIds(q=jnp.zeros(padded, jnp.int32), kv=hidden) if padded_keys > num_keys else None
    result = jax.vmap(kernel, in_axes=(0, 0, 0, None))(query, key, value, segments)
    return result.swapaxes(1, 2)[:, :length]


def block_size(length: int) -> int:
    """Of all large blocks the one with which the least is padded."""
    if length <= SMALLEST_BLOCK:
        return -(-length // LANES) * LANES
    return min(range(LARGEST_BLOCK, SMALLEST_BLOCK - 1, -LANES), key=lambda size: -(-length // size) * size)


def _block_sizes(queries: int, keys: int) -> splash.BlockSizes:
    """The same for all three kernels."""
    return splash.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_kv_compute=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        block_kv_dkv_compute=keys,
        block_q_dq=queries,
        block_kv_dq=keys,
    )


def _heads_first(x: jax.Array, block: int) -> jax.Array:
    """`[B, T, heads, head_dim]` to `[B, heads, T, head_dim]`, T padded with zeros to a multiple of `block`."""
    return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, -x.shape[1] % block), (0, 0)))
