import numpy as np
import pytest

from pea_jax.weights.tensor_parts import Part, TorchStandIn, Transposed

ARRAY = np.arange(24.0).reshape(4, 3, 2, 1)


class Recorded:
    """An array that remembers what was read of it."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, []

    def __getitem__(self, index):
        self.reads.append(self.array[index].shape)
        return self.array[index]


@pytest.mark.parametrize("index", [(slice(1, 3),), (slice(None), slice(None), 1, 0), (slice(2, None), 1)])
def test_a_part_is_numpys(index):
    base = Recorded(ARRAY)
    part, wanted = Part(base, index), ARRAY[index]
    assert part.shape == wanted.shape and part.dtype == wanted.dtype and not base.reads
    whole = (slice(None),) * wanted.ndim
    np.testing.assert_array_equal(part[whole], wanted)
    np.testing.assert_array_equal(part[(slice(1, 2), *whole[1:])], wanted[1:2])
    assert [np.prod(read) for read in base.reads] == [wanted.size, wanted[1:2].size], "more was read than asked for"


def test_a_stand_in_reads_nothing():
    matrix = Recorded(ARRAY.reshape(4, 6))
    stand_in = TorchStandIn("weight", matrix)
    result = stand_in[2:].clone().detach().T.contiguous()
    assert (result.name, result.shape, result.ndim) == ("weight", (6, 2), 2) and not matrix.reads
    np.testing.assert_array_equal(result.tensor[:, :], matrix.array[2:].T)
    np.testing.assert_array_equal(Transposed(matrix)[1:3, :2], matrix.array.T[1:3, :2])
