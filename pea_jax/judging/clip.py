"""A CLIP as a judge: texts and pictures as unit vectors, whose product says how well they go together."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging import published_pixels
from pea_jax.judging.pixels import Preprocessing
from pea_jax.text.architectures import architecture_of
from pea_jax.text.chunks import ChunkedEncoder, chunks
from pea_jax.text.encoders import TextEncoder, load_text_encoder
from pea_jax.weights.clip_vision import open_transformers_vision
from pea_jax.weights.locations import locate
from pea_jax.weights.open_clip_vision import open_open_clip_vision
from pea_jax.weights.openai_vision import open_cn_clip_vision, open_ruclip_vision
from pea_jax.weights.rinna_vision import open_rinna_vision
from pea_jax.weights.vision_files import Heads, Network, VisionFiles, load_vision


@dataclasses.dataclass(frozen=True)
class Family:
    """How a kind of CLIP judges.

    Attributes:
      text_vector: what becomes the vector of a text: the network's "own"; else the state of the "first" token, the same
        behind BERT's "pooler", or the "mean" of all, padding left out, which is then projected.
      open_vision: what finds picture encoder and projections in a folder.
      preprocessing: how pictures are prepared, from the folder and the side that the network wants.
    """

    text_vector: Literal["own", "first", "pooler", "mean"]
    open_vision: Callable[[pathlib.Path], VisionFiles] = open_transformers_vision
    preprocessing: Callable[[pathlib.Path, int], Preprocessing] = published_pixels.of_transformers


RINNA = Family("first", open_rinna_vision, published_pixels.of_rinna)
# Of the encoder table, those that look at pictures as well.
FAMILIES = {
    "AltCLIPModel": Family("first"),
    "CLIPModel": Family("own"),
    "CLIPModel/bert": RINNA,
    "CLIPModel/roberta": RINNA,
    "CLOOBModel": RINNA,
    "ChineseCLIPModel": Family("first"),
    "CustomTextCLIP": Family("mean", open_open_clip_vision, published_pixels.of_open_clip),
    "HybridCLIP": Family("pooler"),
    "MetaClip2Model": Family("own"),
    "VisionTextDualEncoderModel": Family("pooler"),
    "cn_clip": Family("first", open_cn_clip_vision, published_pixels.of_cn_clip),
    "ruCLIP": Family("own", open_ruclip_vision, published_pixels.of_ruclip),
}


class CLIP:
    """`text_embeds` and `image_embeds` of any number of texts and pictures; `logit_scale` as it was trained."""

    def __init__(
        self,
        text_encoder: TextEncoder,
        vision: Network,
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
        """From a folder in the layout of one of `FAMILIES`, or OWNER/NAME on the Hugging Face Hub.

        Raises:
          PeaError: a part is missing or broken, or it is no CLIP, or one whose picture encoder is another network.
        """
        folder = locate(name)
        if (family := FAMILIES.get(architecture := architecture_of(folder))) is None:
            raise PeaError(f"{name}: {architecture} cannot judge pictures here (known: {', '.join(FAMILIES)})")
        opened = family.open_vision(folder)
        preprocessing = family.preprocessing(folder, opened.config.image_size)
        if family.text_vector == "pooler" and opened.heads.pooler is None:
            raise PeaError(f"{name}: no text_model.pooler.dense among the weights; the vectors of its texts need it")
        text_encoder = load_text_encoder(folder, dtype=dtype, mesh=mesh)
        if family.text_vector != "own":
            _check_widths(opened, text_encoder.hidden_size)
        return cls(text_encoder, load_vision(opened, dtype=dtype, mesh=mesh), opened.heads, preprocessing, mesh)

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


def _check_widths(opened: VisionFiles, hidden_size: int) -> None:
    """The states of texts, of `hidden_size`, become vectors as wide as those of pictures."""
    shapes = [matrix.shape for matrix in opened.heads.text_projections]
    inner = [hidden_size, *(columns for _, columns in shapes)]
    if inner[:-1] != [rows for rows, _ in shapes] or inner[-1] != opened.config.projection_dim:
        raise PeaError(
            f"{opened.source}: projections {shapes} do not lead from the texts' {hidden_size} numbers to the "
            f"pictures' {opened.config.projection_dim}; check that config and weights belong together"
        )


def _text_vectors(encoder: TextEncoder, heads: Heads, params: Any, tokens: Any) -> jax.Array:
    last, features = encoder.run(params, **tokens)
    rule = FAMILIES[encoder.architecture].text_vector
    if rule == "own":
        return _unit(features["text_embeds"])
    states = last.astype(jnp.float32)
    state = _mean(states, tokens["attention_mask"]) if rule == "mean" else states[:, 0]
    if rule == "pooler":
        assert heads.pooler is not None, "checked when it was loaded"
        kernel, bias = heads.pooler
        state = jnp.tanh(state @ kernel + bias[None])
    for number, matrix in enumerate(heads.text_projections):
        state = (jax.nn.gelu(state, approximate=False) if number else state) @ matrix
    return _unit(state)


def _mean(states: jax.Array, attention_mask: jax.Array) -> jax.Array:
    """`[N, L, D]` to `[N, D]`, padding left out."""
    mask = attention_mask.astype(states.dtype)[:, :, None]
    return (states * mask).sum(1) / mask.sum(1)


def _image_vectors(graphdef: nnx.GraphDef, preprocessing: Preprocessing, params: Any, batch: Any) -> jax.Array:
    _, features = nnx.merge(graphdef, params)(preprocessing.normalise(batch["pixels"]))
    return _unit(features["image_embeds"])


def _unit(vectors: jax.Array) -> jax.Array:
    vectors = vectors.astype(jnp.float32)
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
