"""Loads FID's Inception from the file that PyTorch ports share."""

import pathlib

from jax.sharding import Mesh, PartitionSpec

from pea_jax.models.inception import Inception
from pea_jax.models.layers import abstract
from pea_jax.weights.checkpoint_files import open_file
from pea_jax.weights.locations import published_file
from pea_jax.weights.torch_names import fill

FILE = "pt_inception-2015-12-05-6726825d.pth"
SOURCE = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
IGNORED = ("fc.weight", "fc.bias")


def find_inception(path: str | pathlib.Path) -> pathlib.Path:
    """The file.

    Raises:
      PeaError: it is missing, with where it is to be had.
    """
    return published_file(path, "FID's Inception", f"curl -LO {SOURCE}", "91 MB")


def load_inception(path: str | pathlib.Path, mesh: Mesh | None = None) -> Inception:
    """The network in a file of PyTorch's, or the same tensors as safetensors; whole on every device of `mesh`.

    Raises:
      PeaError: the file is missing, with where it is to be had; or it is broken, or of another network.
    """
    path = find_inception(path)
    stored = open_file(path)
    tensors = {
        name: tensor
        for name, tensor in stored.items()
        if name not in IGNORED and not name.endswith("num_batches_tracked")
    }
    model = abstract(Inception)
    return fill(model, tensors, source=str(path), mesh=mesh, partition=lambda name, shape: PartitionSpec())
