"""Text -> `Conditioning`, the only thing that text hands to the denoiser."""

import abc
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax import mesh as meshes
from pea_jax.adapter import PEAdapter
from pea_jax.errors import PeaError
from pea_jax.text.chunks import ChunkedEncoder
from pea_jax.text.encoders import TextEncoder
from pea_jax.text.joined import JoinedTextEncoder, load_text_encoders
from pea_jax.text.tokenizer import Tokenizer, load_tokenizer
from pea_jax.weights.abstract import values_left_out
from pea_jax.weights.adapter_layouts import read_config as read_adapter_config
from pea_jax.weights.transformers import load_clip_text

Tokens = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told.

    `prompt_embeds` `[B, L, D]`, `pooled_prompt_embeds` `[B, P]`, `attention_mask` `[B, L]`: without a mask the denoiser
    attends to all L tokens, padding included, as Stable Diffusion does.
    """

    prompt_embeds: jax.Array
    pooled_prompt_embeds: jax.Array | None = None
    attention_mask: jax.Array | None = None


def split_negative(conditioning: Conditioning) -> tuple[Conditioning, Conditioning]:
    """The conditioning of N prompts, and that of the negative prompt which follows them in the last row."""
    return jax.tree.map(lambda x: x[:-1], conditioning), jax.tree.map(lambda x: x[-1:], conditioning)


class Conditioner(abc.ABC):
    """Tokenizer, network and frozen `params`, which may be replaced by others of the same shapes."""

    def __init__(self, params: Any, mesh: jax.sharding.Mesh | None = None):
        self.params = params
        self._encode = ChunkedEncoder(self.apply, mesh)

    @abc.abstractmethod
    def tokenize(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Arrays `[len(texts), L]` int32, by name."""

    @abc.abstractmethod
    def apply(self, params: Any, tokens: Tokens) -> Conditioning:
        """The conditioning of `tokens`; pure, for use inside a jitted step."""

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """The conditioning of any number of texts, jitted."""
        return self._encode(self.params, self.tokenize(texts))

    def encode_guided(self, texts: Sequence[str], negative: str = "") -> tuple[Conditioning, Conditioning]:
        """The conditioning of `texts`, and that of one negative prompt, for classifier-free guidance."""
        return split_negative(self.encode([*texts, negative]))

    def unconditional(self, batch_size: int) -> Conditioning:
        """The conditioning of the empty text, `batch_size` times."""
        return jax.tree.map(lambda x: jnp.repeat(x, batch_size, axis=0), self.encode([""]))


class StableDiffusionXLConditioner(Conditioner):
    """The two CLIP encoders of Stable Diffusion XL, after diffusers `StableDiffusionXLPipeline.encode_prompt`.

    Penultimate hidden states side by side; pooled is the projection of the second encoder. `params` is a dict with the
    parameters of `text_encoder` and `text_encoder_2`.
    """

    def __init__(
        self,
        tokenizers: tuple[Tokenizer, Tokenizer],
        text_encoders: tuple[nnx.Module, nnx.Module],
        context_length: int,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.tokenizer, self.tokenizer_2 = tokenizers
        self.context_length = context_length
        self._graphdef, first = nnx.split(text_encoders[0])
        self._graphdef_2, second = nnx.split(text_encoders[1])
        super().__init__({"text_encoder": first, "text_encoder_2": second}, mesh)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | pathlib.Path,
        dtype: jax.typing.DTypeLike = jnp.float32,
        mesh: jax.sharding.Mesh | None = None,
        config: str | pathlib.Path | None = None,
    ) -> "StableDiffusionXLConditioner":
        """From the folder of a diffusers pipeline: `tokenizer`, `tokenizer_2`, `text_encoder`, `text_encoder_2`.

        With `config`, the diffusers folder of its base model, from a checkpoint in one file.

        Raises:
          PeaError: if one is missing or broken, or they do not agree on the number of tokens.
        """
        configs = pathlib.Path(config or folder)
        tokenizers = load_tokenizer(configs / "tokenizer"), load_tokenizer(configs / "tokenizer_2")
        first = load_clip_text(folder, "text_encoder", dtype=dtype, mesh=mesh, config=config)
        second = load_clip_text(folder, "text_encoder_2", dtype=dtype, mesh=mesh, config=config)
        if second.text_projection is None:
            raise PeaError(f"{configs / 'text_encoder_2'}: must be a CLIPTextModelWithProjection")
        positions = [encoder.config.max_position_embeddings for encoder in (first, second)]
        lengths = {tokenizer.model_max_length or min(positions) for tokenizer in tokenizers}
        if len(lengths) > 1 or max(lengths) > min(positions):
            raise PeaError(
                f"{configs}: the tokenizers' model_max_length {sorted(lengths)} must be one number, "
                f"at most the encoders' max_position_embeddings {positions}"
            )
        return cls(tokenizers, (first, second), lengths.pop(), mesh)

    def tokenize(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids` and `input_ids_2`, one for each encoder."""
        return {
            "input_ids": self.tokenizer.encode(texts, self.context_length)["input_ids"],
            "input_ids_2": self.tokenizer_2.encode(texts, self.context_length)["input_ids"],
        }

    def apply(self, params: Mapping[str, Any], tokens: Tokens) -> Conditioning:
        # Padding is not masked: Stable Diffusion was trained so.
        _, features = nnx.merge(self._graphdef, params["text_encoder"])(tokens["input_ids"])
        _, features_2 = nnx.merge(self._graphdef_2, params["text_encoder_2"])(tokens["input_ids_2"])
        penultimate = [features["hidden_states"][-2], features_2["hidden_states"][-2]]
        return Conditioning(jnp.concatenate(penultimate, axis=-1), features_2["text_embeds"])


class AdapterConditioner(Conditioner):
    """A frozen text encoder with an adapter behind it; `params` is `(encoder_params, adapter_params)`.

    Raises:
      PeaError: the adapter takes states of another width than the encoder gives.
    """

    def __init__(self, text_encoder: TextEncoder | JoinedTextEncoder, adapter: PEAdapter):
        if adapter.dims.input_dim != text_encoder.hidden_size:
            raise PeaError(
                f"{text_encoder.name_or_path}: gives states of width {text_encoder.hidden_size}, the adapter takes "
                f"{adapter.dims.input_dim}; name the text encoder that it was trained behind"
            )
        self.text_encoder, mesh = text_encoder, text_encoder.mesh
        self.adapter_dims = adapter.dims
        self._graphdef, adapter_params = nnx.split(adapter)
        if mesh is not None and not values_left_out():
            # As numpy arrays: from a device of its own no process puts them on those of all.
            adapter_params = jax.device_put(jax.tree.map(np.asarray, adapter_params), meshes.replicated(mesh))
        super().__init__((text_encoder.params, adapter_params), mesh)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | pathlib.Path,
        dtype: jax.typing.DTypeLike = jnp.float32,
        mesh: jax.sharding.Mesh | None = None,
    ) -> "AdapterConditioner":
        """From an adapter directory, whose config.json names the text encoder and how it is called.

        Raises:
          PeaError: the directory or the encoder is missing, broken, or does not say what is needed; or the encoder
            pads otherwise than the adapter was trained with.
        """
        rule = read_adapter_config(folder).get("text_encoder")
        if not isinstance(rule, dict) or not isinstance(rule.get("id"), str):
            raise PeaError(f"{pathlib.Path(folder) / 'config.json'}: does not name its text_encoder")
        wanted = {name: rule[name] for name in ("context_length", "prefix", "hidden_state") if name in rule}
        adapter = PEAdapter.from_pretrained(folder)
        return cls(load_text_encoders(rule["id"], **wanted, dtype=dtype, mesh=mesh, rule=rule), adapter)

    def tokenize(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` of the text encoder."""
        return self.text_encoder.tokenize(texts)

    def apply(self, params: tuple[Any, Any], tokens: Tokens) -> Conditioning:
        encoder_params, adapter_params = params
        return self.from_states(adapter_params, self.text_encoder.apply(encoder_params, **tokens))

    def from_states(self, adapter_params: Any, states: jax.Array) -> Conditioning:
        """The conditioning of the text encoder's output `[B, L, D]`; pure."""
        # The adapter spreads over all positions, padding too, so that there is no mask to hand on.
        return Conditioning(*nnx.merge(self._graphdef, adapter_params)(states))
