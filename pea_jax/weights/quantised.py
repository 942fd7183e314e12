"""Weights in the 4-bit format Q4_0 of ggml, as the embedded text encoder ships them.

A matrix `NAME` `[out, in]` is stored as two tensors, `NAME.q4` `[out, in / 32, 16]` uint8 and `NAME.d` `[out, in / 32]`
float16. A block holds 32 consecutive weights of one row: byte j carries weight j in its low half and weight j + 16 in
its high half, and a weight is `(half - 8) * d`.
"""

from collections.abc import Mapping

import numpy as np

from pea_jax.errors import PeaError
from pea_jax.weights.stored import StoredArray, whole

PACKED, SCALE = ".q4", ".d"


def dequantise(packed: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights `[out, in]` in float32 of `packed` `[out, in / 32, 16]` and `scale` `[out, in / 32]`."""
    halves = np.concatenate([packed & 15, packed >> 4], axis=-1)
    blocks = (halves.astype(np.float32) - 8.0) * scale.astype(np.float32)[..., None]
    return blocks.reshape(len(packed), -1)


def dequantise_all(tensors: Mapping[str, StoredArray], *, source: str) -> dict[str, StoredArray]:
    """`tensors` with every packed pair replaced by its matrix under the plain name.

    Raises:
      PeaError: naming `source` and the pairs of which a half is missing or whose shapes or types do not fit.
    """
    names = [name.removesuffix(PACKED) for name in tensors if name.endswith(PACKED)]
    if problems := [problem for name in names if (problem := _problem(tensors, name))]:
        raise PeaError(f"{source}: {'; '.join(problems)}")
    pairs = {name + suffix for name in names for suffix in (PACKED, SCALE)}
    result = {name: tensor for name, tensor in tensors.items() if name not in pairs}
    for name in names:
        result[name] = dequantise(whole(tensors[name + PACKED]), whole(tensors[name + SCALE]))
    return result


def _problem(tensors: Mapping[str, StoredArray], name: str) -> str | None:
    packed, scale = tensors[name + PACKED], tensors.get(name + SCALE)
    if scale is None:
        return f"{name + PACKED} has no {name + SCALE} beside it"
    if packed.dtype != np.uint8 or scale.dtype != np.float16 or tuple(packed.shape) != (*scale.shape, 16):
        return (
            f"{name}: {PACKED} {packed.dtype}{list(packed.shape)} and {SCALE} {scale.dtype}{list(scale.shape)} "
            "must be uint8[out, blocks, 16] and float16[out, blocks]"
        )
    return None
