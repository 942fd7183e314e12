"""Inception's features of pictures, prepared as clean-fid does (Parmar et al. 2022): PIL's bicubic filter, in float."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from pea_jax.data.samples import opaque
from pea_jax.models.inception import SIDE, WIDTH
from pea_jax.text.chunks import ChunkedEncoder, chunks
from pea_jax.weights.inception import load_inception


class InceptionFeatures:
    """Pictures of any sizes to `[N, 2048]`."""

    def __init__(self, path: str | pathlib.Path, mesh: Mesh | None = None):
        graphdef, self._params = nnx.split(load_inception(path, mesh))

        def encode(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            return nnx.merge(graphdef, params)((batch["pixels"] - 128) / 128)

        self._encode = ChunkedEncoder(encode, mesh)

    def __call__(self, pictures: Iterable[Image.Image]) -> np.ndarray:
        pieces = [
            np.asarray(self._encode(self._params, {"pixels": np.stack(chunk)}))
            for chunk in chunks(map(resize, pictures))
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, WIDTH), np.float32)


def resize(picture: Image.Image) -> np.ndarray:
    """`[299, 299, 3]` float32 from 0 to 255, not rounded."""
    channels = np.moveaxis(np.asarray(opaque(picture), np.float32), -1, 0)
    scaled = [Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for channel in channels]
    return np.stack([np.asarray(channel).clip(0, 255) for channel in scaled], axis=-1)
