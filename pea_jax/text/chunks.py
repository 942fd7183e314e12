"""Runs an encoder over any number of texts in batches of few fixed sizes, so that few shapes are ever compiled."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pea_jax import mesh as meshes

SIZES = (1, 8, 64)  # a single prompt must not wait for 63 empty ones


def chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    """As many of `items` as are encoded at once, and the rest."""
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, SIZES[-1])):
        yield chunk


class ChunkedEncoder:
    """`encode(params, tokens)`, jitted, for the pure function `encode` on a tree of frozen `params`.

    With a mesh every chunk is split over all its devices, and the result is whole on each of them.
    """

    def __init__(self, encode: Callable[[Any, Mapping[str, jax.Array]], Any], mesh: jax.sharding.Mesh | None = None):
        self._mesh = mesh
        if mesh is None:
            self._encode = jax.jit(encode)
        else:
            self._encode = jax.jit(
                lambda params, tokens: encode(meshes.gather(params, mesh), tokens),
                out_shardings=meshes.replicated(mesh),
            )

    def __call__(self, params: Any, tokens: Mapping[str, np.ndarray]) -> Any:
        """Encodes `tokens`, arrays `[N, ...]` for any N; every array of the result is `[N, ...]`, in the same order."""
        rows = len(next(iter(tokens.values())))
        pieces: list[Any] = []
        start = 0
        while start < rows or not pieces:
            size = self._size(rows - start)
            chunk = {name: _fill_up(values[start : start + size], size) for name, values in tokens.items()}
            pieces.append(self._encode(params, self._put(chunk)))
            start += size
        # Joined by numpy: in JAX every new N would compile a concatenation and a slice.
        return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:rows]), *pieces)

    def _size(self, rows: int) -> int:
        size = next((size for size in SIZES if size >= rows), SIZES[-1])
        devices = 1 if self._mesh is None else self._mesh.size
        return -(-size // devices) * devices

    def _put(self, chunk: dict[str, np.ndarray]) -> dict[str, Any]:
        return chunk if self._mesh is None else jax.device_put(chunk, meshes.batch_sharding(self._mesh))


def _fill_up(values: np.ndarray, size: int) -> np.ndarray:
    """`values` with their last row repeated up to `size` rows (zeros if there is none)."""
    missing = size - len(values)
    filler = values[-1:] if len(values) else np.zeros((1, *values.shape[1:]), values.dtype)
    return np.concatenate([values, np.repeat(filler, missing, axis=0)])
