"""Weights of Flax models of transformers: layouts worked out by hand, and what is no such file."""

import pathlib

import numpy as np
import pytest
from flax import serialization

from pea_jax.errors import PeaError
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.flax_files import open_flax

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)
TREE = {
    "encoder": {"dense": {"kernel": MATRIX, "bias": MATRIX[0]}, "LayerNorm": {"scale": MATRIX[1], "bias": MATRIX[0]}},
    "word_embeddings": {"embedding": MATRIX},
    "patch_embedding": {"kernel": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)},
    "logit_scale": np.float32(3),
}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(serialization.msgpack_serialize(TREE))
    return path


def test_names_and_layouts_are_those_of_pytorch(path: pathlib.Path):
    tensors = {name: np.asarray(tensor) for name, tensor in open_flax(path).items()}
    np.testing.assert_array_equal(tensors["encoder.dense.weight"], MATRIX.T)
    np.testing.assert_array_equal(tensors["word_embeddings.weight"], MATRIX)
    np.testing.assert_array_equal(tensors["encoder.LayerNorm.weight"], MATRIX[1])
    assert tensors["patch_embedding.weight"].shape == (4, 3, 1, 2)
    assert tensors["patch_embedding.weight"][3, 1, 0, 1] == TREE["patch_embedding"]["kernel"][0, 1, 1, 3]
    assert tensors["logit_scale"] == 3 and len(tensors) == 7


def test_it_is_taken_where_there_is_nothing_else(path: pathlib.Path):
    found, tensors = open_checkpoint(path.parent, "model")
    assert found == path and "encoder.dense.weight" in tensors
    with pytest.raises(PeaError, match="neither diffusion_pytorch_model.safetensors"):
        open_checkpoint(path.parent, "diffusion_pytorch_model")


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"words", serialization.msgpack_serialize({"a": {"kernel": MATRIX[0]}})]
)
def test_other_files_are_named(path: pathlib.Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(PeaError, match=f"{path}: not a complete tree of arrays"):
        open_flax(path)


def test_truncated_files_are_named(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PeaError, match="not a complete tree of arrays"):
        open_flax(path)


def test_a_missing_file_is_named(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match="no such file"):
        open_flax(tmp_path / "flax_model.msgpack")
