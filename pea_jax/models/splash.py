"""Attention on TPUs by JAX's splash kernel, of any length."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

LANES = 128  # of a TPU's vector register; blocks of keys are multiples
LARGEST_BLOCK = 1024


def splash_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, scale: float | None = None, interpret: bool = False
) -> jax.Array:
    """As `attention.attention` without mask and bias.

    Lengths are padded to multiples of 128; what is padded has a segment of its own, which no query sees.

    Args:
      interpret: run the kernel step by step on any device, as tests do.
    """
    length, num_keys = query.shape[1], key.shape[1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    query, key, value = (_heads_first(x) for x in (query * scale, key, value))
    segments = splash.SegmentIds(
        q=jnp.zeros(query.shape[2], jnp.int32), kv=(jnp.arange(key.shape[2]) >= num_keys).astype(jnp.int32)
    )
    is_padded = key.shape[2] > num_keys
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([splash.FullMask((query.shape[2], key.shape[2]))] * query.shape[1]),
        block_sizes=block_sizes(query.shape[2], key.shape[2]),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    result = jax.vmap(kernel, in_axes=(0, 0, 0, None))(query, key, value, segments if is_padded else None)
    return result.swapaxes(1, 2)[:, :length]


def block_sizes(length: int, num_keys: int) -> splash.BlockSizes:
    """Blocks for padded lengths: as large as fit into a chip's vector memory, since a step over one costs time."""
    queries, keys = _largest_block(length), _largest_block(num_keys)
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


def _largest_block(length: int) -> int:
    return max(size for size in range(LANES, LARGEST_BLOCK + 1, LANES) if length % size == 0)


def _heads_first(x: jax.Array) -> jax.Array:
    """`[B, T, heads, head_dim]` to `[B, heads, T, head_dim]`, T padded with zeros to a multiple of 128."""
    return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, -x.shape[1] % LANES), (0, 0)))
