"""A CLIP's picture encoder in its files, and what joins it to the text encoder."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from pea_jax.models.layers import abstract
from pea_jax.models.vit import ViTWithProjection
from pea_jax.weights.stored import StoredArray, whole
from pea_jax.weights.torch_names import fill

Network = CLIPVision | ViTWithProjection


@dataclasses.dataclass(frozen=True)
class Heads:
    """What makes one vector of a text, and of two vectors a score.

    `text_projections` are matrices `[in, out]`, one or two, with an exact GELU between; none where the text encoder
    projects by itself, or the states are vectors as they are. `pooler`, a kernel `[D, D]` and a bias `[D]`, is there in
    some files of BERTs.
    """

    text_projections: tuple[np.ndarray, ...]
    logit_scale: float
    pooler: tuple[np.ndarray, np.ndarray] | None = None


class VisionFiles(NamedTuple):
    """A picture encoder that is not built yet: `network` is its class; `tensors` come from `source`."""

    network: Callable[..., Network]
    config: CLIPVisionConfig
    tensors: Mapping[str, StoredArray]
    source: str
    heads: Heads


def load_vision(opened: VisionFiles, *, dtype: jax.typing.DTypeLike = jnp.float32, mesh: Mesh | None = None) -> Network:
    """The picture encoder, with its projection.

    Args:
      dtype: of storage and computation.
      mesh: on each of whose devices the parameters are placed, whole; by default on the default device.

    Raises:
      PeaError: if the tensors are those of another network.
    """
    model = abstract(lambda: opened.network(opened.config, dtype=dtype, param_dtype=dtype))
    return fill(model, opened.tensors, source=opened.source, mesh=mesh, partition=lambda name, shape: PartitionSpec())


def matrices(tensors: Mapping[str, StoredArray], names: Collection[str], *, source: str) -> tuple[np.ndarray, ...]:
    """The named matrices in float32, as they are stored.

    Raises:
      PeaError: if one is missing, or has not two axes.
    """
    for name in names:
        _present(tensors, name, source)
        if len(tensors[name].shape) != 2:
            raise PeaError(f"{source}: {name} is {list(tensors[name].shape)}, must be a matrix; download it again")
    return tuple(np.asarray(whole(tensors[name]), np.float32) for name in names)


def logit_scale(tensors: Mapping[str, StoredArray], *, source: str) -> float:
    """What the cosines of texts and pictures are multiplied by; the file has its logarithm.

    Raises:
      PeaError: if it is missing, or not one number.
    """
    _present(tensors, "logit_scale", source)
    value = np.asarray(whole(tensors["logit_scale"]), np.float32)
    if value.size != 1:
        raise PeaError(f"{source}: logit_scale is {list(value.shape)}, must be one number; download it again")
    return float(np.exp(value).reshape(()))


def _present(tensors: Mapping[str, StoredArray], name: str, source: str) -> None:
    if name not in tensors:
        raise PeaError(f"{source}: no {name}; is this a model of both texts and pictures?")
