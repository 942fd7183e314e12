"""A CLIP as a judge: texts and pictures as unit vectors, whose product says how well they go together."""

import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging.pixels import Preprocessing
from pea_jax.models.clip_vision import CLIPVision
from pea_jax.text.architectures import architecture_of
from pea_jax.text.chunks import ChunkedEncoder, chunks
from pea_jax.text.encoders import TextEncoder, load_text_encoder
from pea_jax.weights.clip_vision import Heads, load_clip_vision, load_heads
from pea_jax.weights.locations import locate

# Of the encoder table, those whose picture encoder is CLIP's ViT, and what becomes the vector of a text: the network's
# own, the first token's state projected, or the same behind BERT's pooler.
TEXT_VECTORS = {
    "AltCLIPModel": "first",
    "CLIPModel": "own",
    "ChineseCLIPModel": "first",
    "HybridCLIP": "pooler",
    "MetaClip2Model": "own",
    "VisionTextDualEncoderModel": "pooler",
}


class CLIP:
    """`text_embeds` and `image_embeds` of any number of texts and pictures; `logit_scale` as it was trained."""

    def __init__(
        self,
        text_encoder: TextEncoder,
        vision: CLIPVision,
        heads: Heads,
        preprocessing: Preprocessing,
        mesh: Mesh | None = None,
    ):
        self.name_or_path, self.logit_scale = text_encoder.name_or_path, heads.logit_scale
        self._text_encoder, self._preprocessing = text_encoder, preprocessing
        graphdef, self._vision_params = nnx.split(vision)
        text_vectors = functools.partial(_text_vectors, text_encoder, heads)
        image_vectors = functools.partial(_image_vectors, graphdef, preprocessing)
        self._encode_texts = ChunkedEncoder(text_vectors, mesh)
        self._encode_images = ChunkedEncoder(image_vectors, mesh)

    @classmethod
    def from_pretrained(
        cls, name: str | pathlib.Path, dtype: jax.typing.DTypeLike = jnp.float32, mesh: Mesh | None = None
    ) -> "CLIP":
        """From a transformers folder, or OWNER/NAME on the Hugging Face Hub.

        Raises:
          PeaError: a part is missing or broken, or it is no CLIP, or one whose picture encoder is another network.
        """
        folder = locate(name)
        if (architecture := architecture_of(folder)) not in TEXT_VECTORS:
            known = ", ".join(TEXT_VECTORS)
            raise PeaError(f"{name}: {architecture} cannot judge pictures here (known: {known})")
        heads, preprocessing = load_heads(folder), Preprocessing.from_folder(folder)
        if TEXT_VECTORS[architecture] == "pooler" and heads.pooler is None:
            raise PeaError(f"{name}: no text_model.pooler.dense among the weights; the vectors of its texts need it")
        text_encoder = load_text_encoder(folder, dtype=dtype, mesh=mesh)
        return cls(text_encoder, load_clip_vision(folder, dtype=dtype, mesh=mesh), heads, preprocessing, mesh)

    def text_embeds(self, texts: Sequence[str]) -> np.ndarray:
        """`[N, P]` float32, each of length 1."""
        return np.asarray(self._encode_texts(self._text_encoder.params, self._text_encoder.tokenize(texts)))

    def image_embeds(self, pictures: Iterable[Image.Image]) -> np.ndarray:
        """`[N, P]` float32, each of length 1; the pictures may be of different sizes."""
        pieces = [
            np.asarray(self._encode_images(self._vision_params, {"pixels": np.stack(chunk)}))
            for chunk in chunks(map(self._preprocessing.fit, pictures))
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, 0), np.float32)


def _text_vectors(encoder: TextEncoder, heads: Heads, params: Any, tokens: Any) -> jax.Array:
    last, features = encoder.run(params, **tokens)
    rule = TEXT_VECTORS[encoder.architecture]
    if rule == "own":
        return _unit(features["text_embeds"])
    state = last[:, 0].astype(jnp.float32)
    if rule == "pooler":
        assert heads.pooler is not None, "checked when it was loaded"
        kernel, bias = heads.pooler
        state = jnp.tanh(state @ kernel + bias[None])
    return _unit(state @ heads.text_projection)


def _image_vectors(graphdef: nnx.GraphDef, preprocessing: Preprocessing, params: Any, batch: Any) -> jax.Array:
    _, features = nnx.merge(graphdef, params)(preprocessing.normalise(batch["pixels"]))
    return _unit(features["image_embeds"])


def _unit(vectors: jax.Array) -> jax.Array:
    vectors = vectors.astype(jnp.float32)
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
