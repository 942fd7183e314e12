"""The English text encoder of Stable Diffusion 1.x and 2.x, and which conditioner the folder of a base model takes."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.text.conditioner import Conditioner, Conditioning, StableDiffusionXLConditioner, Tokens
from pea_jax.text.tokenizer import Tokenizer, load_tokenizer
from pea_jax.weights.config_files import one_line
from pea_jax.weights.transformers import load_clip_text

PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3")
CLIP_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")


class StableDiffusionConditioner(Conditioner):
    """The CLIP encoder of Stable Diffusion 1.x or 2.x, after diffusers `StableDiffusionPipeline.encode_prompt`.

    Its last hidden state, after the final norm; nothing pooled. Stable Diffusion 2 takes the penultimate layer of
    OpenCLIP's ViT-H by leaving the last one out of the file.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        text_encoder: nnx.Module,
        context_length: int,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.tokenizer, self.context_length = tokenizer, context_length
        self._graphdef, params = nnx.split(text_encoder)
        super().__init__(params, mesh)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | pathlib.Path,
        dtype: jax.typing.DTypeLike = jnp.float32,
        mesh: jax.sharding.Mesh | None = None,
        config: str | pathlib.Path | None = None,
    ) -> "StableDiffusionConditioner":
        """From the folder of a diffusers pipeline: `tokenizer`, `text_encoder`; `config` as for `load_conditioner`.

        Raises:
          PeaError: if one is missing or broken, or the tokenizer makes more tokens than the encoder takes.
        """
        tokenizer = load_tokenizer(pathlib.Path(config or folder) / "tokenizer")
        text_encoder = load_clip_text(folder, "text_encoder", dtype=dtype, mesh=mesh, config=config)
        longest = text_encoder.config.max_length
        context_length = tokenizer.model_max_length or longest
        if context_length > longest:
            raise PeaError(
                f"{folder}: the tokenizer's model_max_length {context_length} must be at most the encoder's "
                f"max_position_embeddings {longest}"
            )
        return cls(tokenizer, text_encoder, context_length, mesh)

    def tokenize(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids`."""
        return {"input_ids": self.tokenizer.encode(texts, self.context_length)["input_ids"]}

    def apply(self, params: Any, tokens: Tokens) -> Conditioning:
        # Padding is not masked: Stable Diffusion was trained so.
        last, _ = nnx.merge(self._graphdef, params)(tokens["input_ids"])
        return Conditioning(last)


def load_conditioner(
    folder: str | pathlib.Path,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
    config: str | pathlib.Path | None = None,
) -> StableDiffusionConditioner | StableDiffusionXLConditioner:
    """The English conditioner of a diffusers folder, by what its `model_index.json` lists, or by its subfolders.

    Args:
      folder: the diffusers folder, or a checkpoint in one file.
      dtype, mesh: as for `load_clip_text`.
      config: for a checkpoint in one file, the diffusers folder with its configs and tokenizers.

    Raises:
      PeaError: the text encoders are not those of Stable Diffusion 1.x, 2.x or XL, or one is missing or broken.
    """
    parts = _text_encoders(pathlib.Path(config or folder))
    if odd := {name: kind for name, kind in parts.items() if kind not in (*CLIP_CLASSES, None)}:
        raise PeaError(
            f"{config or folder}: {next(iter(odd))} is a {next(iter(odd.values()))}, not a {CLIP_CLASSES[0]}"
        )
    if list(parts) == ["text_encoder"]:
        return StableDiffusionConditioner.from_pretrained(folder, dtype, mesh, config)
    if list(parts) == ["text_encoder", "text_encoder_2"]:
        return StableDiffusionXLConditioner.from_pretrained(folder, dtype, mesh, config)
    raise PeaError(
        f"{config or folder}: has {', '.join(parts) or 'no text encoder'}; Stable Diffusion 1 and 2 have text_encoder, "
        "Stable Diffusion XL text_encoder and text_encoder_2"
    )


def _text_encoders(folder: pathlib.Path) -> dict[str, str | None]:
    """The text encoders of a pipeline by name, with their classes where `model_index.json` states them."""
    path = folder / "model_index.json"
    if not path.is_file():
        return {name: None for name in PARTS if (folder / name).is_dir()}
    try:
        index = json.loads(path.read_bytes())
        return {name: index[name][1] for name in PARTS if index.get(name, [None])[0]}
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise PeaError(f"{path}: not the index of a diffusers pipeline ({one_line(error)})") from error
