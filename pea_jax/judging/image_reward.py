"""ImageReward: how people like a picture for its text, by a network that looks at both together."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from pea_jax.judging.pixels import Preprocessing
from pea_jax.text.chunks import ChunkedEncoder, chunks
from pea_jax.text.tokenizer import load_tokenizer
from pea_jax.weights.image_reward import load_image_reward
from pea_jax.weights.locations import locate

TOKENIZER, LENGTH = "google-bert/bert-base-uncased", 35  # of the published scores


class ImageRewards:
    """Rewards of any number of pictures, each with its text."""

    def __init__(self, path: str | pathlib.Path, tokenizer: str | pathlib.Path = TOKENIZER, mesh: Mesh | None = None):
        """From `ImageReward.pt`, and the folder or Hub id of BERT's tokenizer.

        Raises:
          PeaError: one of them is missing or broken.
        """
        model = load_image_reward(path, mesh)
        self._tokenizer = load_tokenizer(locate(tokenizer, with_weights=False))
        side = model.config.vision.image_size
        self._preprocessing = preprocessing = Preprocessing(size=side, crop=(side, side), crop_to_even=True)
        graphdef, self._params = nnx.split(model)

        def encode(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            pixels = preprocessing.normalise(batch["pixels"])
            return nnx.merge(graphdef, params)(pixels, batch["input_ids"], batch["attention_mask"])

        self._encode = ChunkedEncoder(encode, mesh)

    def __call__(self, texts: Sequence[str], pictures: Iterable[Image.Image], count: int = 1) -> np.ndarray:
        """`[N, count]` float32 for N texts and, in their order, `count` pictures of each."""
        tokens = self._tokenizer.encode(texts, LENGTH)
        pieces, start = [np.zeros(0, np.float32)], 0
        for chunk in chunks(map(self._preprocessing.fit, pictures)):
            rows = np.arange(start, start + len(chunk)) // count
            batch = dict(pixels=np.stack(chunk), **{name: values[rows] for name, values in tokens.items()})
            pieces.append(np.asarray(self._encode(self._params, batch)))
            start += len(chunk)
        return np.concatenate(pieces).reshape(len(texts), count)
