"""What PyTorch pickled is read as PyTorch reads it, and nothing in such a file is ever run."""

import os
import pathlib
import pickle
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pea_jax.errors import PeaError
from pea_jax.weights.pickled_files import open_pickled

WHOLE = slice(None)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "full": torch.randn(3, 4),
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(3, 4).bfloat16(),
        "strided": torch.randn(4, 3).T,
        "count": torch.tensor(7),
        "learned": torch.nn.Parameter(torch.randn(2)),
    }


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"epoch": 3, "state_dict": x}])
def test_tensors_as_pytorch_has_them(state, tmp_path, is_zip, wrap):
    path = tmp_path / "model.pt"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=is_zip)
    tensors = open_pickled(path)
    assert tensors.keys() == state.keys()
    for name, expected in state.items():
        values = tensors[name][(WHOLE,) * expected.ndim]
        assert values.shape == tensors[name].shape == expected.shape and values.dtype == tensors[name].dtype
        np.testing.assert_array_equal(values.astype(np.float32), expected.detach().float())
    assert tensors["brain"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(tensors["strided"][1:, :2], state["strided"][1:, :2])


def test_a_dtype_without_a_counterpart_is_no_number(tmp_path):
    torch.save({"quantised": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "model.bin")
    assert open_pickled(tmp_path / "model.bin")["quantised"].dtype == np.void


class Trap:
    """Unpickled carelessly, it makes the folder `path`."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda x, path: torch.save(x, path, _use_new_zipfile_serialization=False),
        lambda x, path: path.write_bytes(pickle.dumps(x)),
        lambda x, path: path.write_bytes(pickle.dumps(x, protocol=2)),
        lambda x, path: torch.save({"state_dict": {"weight": torch.ones(2), "bias": x}}, path),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_the_file_is_run(tmp_path, save):
    path, made = tmp_path / "model.bin", tmp_path / "made"
    save(Trap(made), path)
    with pytest.raises(PeaError, match="nothing in it was run|without running anything"):
        open_pickled(path)
    assert not made.exists()
    if path.read_bytes()[:2] != b"PK":  # the trap is a real one
        with path.open("rb") as file:
            pickle.load(file)
            if not made.exists():  # the old format starts with pickles of its own
                [pickle.load(file) for _ in range(3)]
        assert made.is_dir()


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(PeaError) as error:
        open_pickled(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_what_is_no_state_dict(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "asks for torch.nn.modules.linear.Linear" in refusal(path)
    for content in ([torch.ones(1)], {"epoch": 3}, torch.ones(2)):
        torch.save(content, path)
        assert "holds no state dict" in refusal(path)
    for tensor in (torch.ones(3).to_sparse(), torch.ones(3, device="meta")):
        torch.save({"weight": tensor}, path)
        assert "weight is a sparse" in refusal(path)


def test_broken_files(state, tmp_path):
    path = tmp_path / "model.bin"
    assert "no such file" in refusal(path)
    torch.save(state, path)
    data = path.read_bytes()
    for kept in (0, 1, 2, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        assert "not a complete file of PyTorch tensors" in refusal(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "not a complete file of PyTorch tensors" in refusal(path)


def test_without_pytorch_it_says_what_to_do(state, tmp_path, monkeypatch):
    path = tmp_path / "model.bin"
    torch.save(state, path)
    monkeypatch.setitem(sys.modules, "torch", None)
    message = refusal(path)
    assert "pip install torch" in message and "save_file" in message
