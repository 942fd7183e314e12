"""Frozen text encoders through `transformers`, called as the adapter's `config.json` says."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from pea_jax.errors import PeaError
from pea_jax.text.tokenizer import Tokenizer, load_tokenizer
from pea_jax.weights.locations import SEPARATOR, locate
from pea_jax.weights.quantised import PACKED, dequantise_all
from pea_jax.weights.safetensors_files import open_safetensors
from pea_jax.weights.stored import whole


@dataclasses.dataclass
class Part:
    """One network with its tokenizer; `hidden_state` -1 is the last one."""

    network: Any
    tokenizer: Tokenizer
    prefix: str
    hidden_state: int
    masked: bool

    def encode(self, texts: Sequence[str], context_length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """States `[B, L, D]`."""
        tokens = self.tokenizer.encode([self.prefix + text for text in texts], context_length)
        input_ids, mask = (torch.from_numpy(tokens[name]).long().to(device) for name in ("input_ids", "attention_mask"))
        # T5 was trained in bfloat16: its states overflow float16.
        half = dtype == torch.float16 and "t5" in self.network.config.model_type
        self.network.to(device=device, dtype=torch.float32 if half else dtype)
        every = self.hidden_state != -1
        found = self.network(input_ids, attention_mask=mask if self.masked else None, output_hidden_states=every)
        return found.hidden_states[self.hidden_state] if every else found.last_hidden_state


@dataclasses.dataclass
class TextEncoder:
    """One encoder, or several whose states are put side by side."""

    parts: list[Part]
    context_length: int

    @property
    def hidden_size(self) -> int:
        """The width of the states."""
        return self.encode([""], torch.device("cpu"), torch.float32).shape[-1]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], device: torch.device, dtype: torch.dtype) -> Tensor:
        """States `[B, L, D]`, padding included."""
        return torch.cat([part.encode(texts, self.context_length, device, dtype) for part in self.parts], dim=-1)


def load_text_encoders(rule: Mapping[str, Any]) -> TextEncoder:
    """What `text_encoder` of an adapter's config.json names.

    Raises:
      PeaError: the rule lacks something, or an encoder is missing, broken or none of transformers'.
    """
    if missing := [name for name in ("id", "context_length") if name not in rule]:
        raise PeaError(f"text_encoder of the adapter's config.json lacks {', '.join(missing)}; export it again")
    names = rule["id"].split(SEPARATOR)
    rules = rule.get("encoders") or [rule] * len(names)
    return TextEncoder([_load(name, each) for name, each in zip(names, rules, strict=True)], rule["context_length"])


def _load(name: str, rule: Mapping[str, Any]) -> Part:
    folder = locate(name)
    network = _network(folder, rule.get("architecture")).eval().requires_grad_(False)
    hidden_state = rule.get("hidden_state")
    return Part(
        network,
        load_tokenizer(folder),
        rule.get("prefix", ""),
        -1 if hidden_state is None else hidden_state,
        rule.get("masked", True),
    )


def _network(folder: pathlib.Path, architecture: str | None) -> Any:
    """The text half of the model in a folder."""
    kind = _class(folder, architecture)
    try:
        packed = [path for path in folder.glob("*.safetensors") if any(map(_is_packed, open_safetensors(path)))]
        model = _unpacked(kind, folder, packed[0]) if packed else kind.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise PeaError(f"{folder}: transformers cannot load it ({' '.join(str(error).split())})") from error
    half = getattr(model, "text_model", None)
    return model.base_model if half is None else half


def _class(folder: pathlib.Path, architecture: str | None) -> Any:
    """The class of transformers for an architecture; of T5 and its relatives the encoder alone."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise PeaError(f"{folder}: not a folder of transformers ({' '.join(str(error).split())})") from error
    name = architecture or (config.architectures or ["none"])[0]
    name = name.partition("/")[0]
    if "T5" in name:
        name = name.partition("T5")[0] + "T5EncoderModel"
    kind = getattr(transformers, name, None)
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise PeaError(
            f"{folder}: transformers has no {name}, so that PyTorch cannot run this text encoder; generate with "
            "`python -m pea_jax.generate`, or train behind an encoder in a folder of transformers"
        )
    return kind


def _is_packed(name: str) -> bool:
    return name.endswith(PACKED)


def _unpacked(kind: Any, folder: pathlib.Path, path: pathlib.Path) -> Any:
    """A network whose weights are kept in 4 bits, as those of the embedded encoder."""
    stored = dequantise_all(open_safetensors(path), source=str(path))
    tensors = {name: torch.from_numpy(np.asarray(whole(tensor), np.float32)) for name, tensor in stored.items()}
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    model = kind(config)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if wrong := [name for name in (*missing, *unexpected) if not name.startswith("pooler.")]:  # which nobody asks
        raise PeaError(f"{path}: {', '.join(wrong[:8])} missing or unexpected; copy or download it again")
    return model
