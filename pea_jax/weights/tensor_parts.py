"""Parts and transposes of tensors that are still in their file, and what stands for those in diffusers' conversion."""

import numpy as np

from pea_jax.weights.stored import StoredArray


class Part:
    """`base[index]`, read when it is asked for; an integer in `index` drops its axis, as in NumPy."""

    def __init__(self, base: StoredArray, index: tuple[slice | int, ...]):
        full = index + (slice(None),) * (len(base.shape) - len(index))
        self._base, self.dtype = base, base.dtype
        self._index = full
        self.shape = tuple(
            len(range(*i.indices(size))) for i, size in zip(full, base.shape, strict=True) if isinstance(i, slice)
        )

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        asked = iter(index)
        ranges = [
            range(size)[i : i + 1] if isinstance(i, int) else range(size)[i][next(asked)]
            for i, size in zip(self._index, self._base.shape, strict=True)
        ]
        values = self._base[tuple(slice(r.start, r.stop, r.step) for r in ranges)]
        return values.reshape([len(r) for i, r in zip(self._index, ranges, strict=True) if isinstance(i, slice)])


def thirds(base: StoredArray) -> list[Part]:
    """Query, key and value of a joint projection: equal parts of its rows."""
    rows = base.shape[0] // 3
    return [Part(base, (slice(start, start + rows),)) for start in (0, rows, 2 * rows)]


class Transposed:
    """`base.T`, read when it is asked for."""

    def __init__(self, base: StoredArray):
        self._base, self.dtype, self.shape = base, base.dtype, tuple(base.shape)[::-1]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self._base[index[::-1]].T


class TorchStandIn:
    """Has of `torch.Tensor` what diffusers' conversion of names does to one; nothing is read.

    `name` is that of the tensor in the file which it was made of, `tensor` the result.
    """

    def __init__(self, name: str, tensor: StoredArray):
        self.name, self.tensor = name, tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> "TorchStandIn":
        return TorchStandIn(self.name, Transposed(self.tensor))

    def __getitem__(self, index: slice | int | tuple[slice | int, ...]) -> "TorchStandIn":
        return TorchStandIn(self.name, Part(self.tensor, index if isinstance(index, tuple) else (index,)))

    def contiguous(self) -> "TorchStandIn":
        return self

    def clone(self) -> "TorchStandIn":
        return self

    def detach(self) -> "TorchStandIn":
        return self
