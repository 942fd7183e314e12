import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pea_jax.errors import PeaError
from pea_jax.weights.safetensors_files import open_safetensors

ARRAYS = {
    "matrix": np.arange(60, dtype=np.float16).reshape(12, 5),
    "kernel": np.arange(48, dtype=np.float32).reshape(4, 3, 2, 2),
    "bias": np.arange(7).astype(ml_dtypes.bfloat16),
    "scale": np.array(3.5, np.float32),
    "nothing": np.zeros((0, 3), np.float32),
}
ALL = slice(None)


@pytest.fixture
def stored(tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors", {"format": "pt"})
    return open_safetensors(tmp_path / "model.safetensors")


def test_shapes_dtypes_and_values(stored):
    assert stored.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (stored[name].shape, stored[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(stored[name][(ALL,) * array.ndim], array)


@pytest.mark.parametrize("index", [(slice(3, 9),), (slice(2, 4), slice(1, 3)), (ALL, slice(4)), (slice(9, 1, -3), ALL)])
def test_parts_are_numpys(stored, index):
    np.testing.assert_array_equal(stored["matrix"][index], ARRAYS["matrix"][index])


def test_only_the_rows_asked_for_are_read(tmp_path):
    """Rows before the place where the file is cut are there, those after it are an error."""
    path = tmp_path / "one.safetensors"
    save_file({"kernel": ARRAYS["kernel"]}, path)
    kernel = open_safetensors(path)["kernel"]
    path.write_bytes(path.read_bytes()[: -ARRAYS["kernel"][3:].nbytes])
    np.testing.assert_array_equal(kernel[1:3, :, :1], ARRAYS["kernel"][1:3, :, :1])
    with pytest.raises(PeaError, match=r"one\.safetensors: ends at byte \d+"):
        kernel[2:, :]
