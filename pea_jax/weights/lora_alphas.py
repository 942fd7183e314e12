"""The alpha of a LoRA's layers: a tensor beside the factors, in the metadata, where diffusers keeps peft's, or in
peft's own file."""

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import safe_open

from pea_jax.errors import PeaError
from pea_jax.weights.stored import StoredArray

METADATA, PEFT_CONFIG = "lora_adapter_metadata", "adapter_config.json"
REFUSED = ("use_dora", "use_rslora", "lora_bias")
_NO_LORA = (ValueError, TypeError, AttributeError, RecursionError, re.error)


AlphaOf = Callable[[str], float | None]  # of a module's name; None if nothing is stated


def stated_alphas(path: pathlib.Path, component: str) -> AlphaOf:
    """What the metadata state for a module.

    Raises:
      PeaError: the metadata are broken, or state what is more than LoRA.
    """
    try:
        return _alpha_of(path, _fields(path, component))
    except _NO_LORA as error:
        raise PeaError(f"{path}: the metadata {METADATA!r} are not those of a LoRA ({error})") from error


def peft_alphas(path: pathlib.Path) -> AlphaOf:
    """What peft's `adapter_config.json` beside the file states for a module.

    Raises:
      PeaError: it is missing or broken, or states what is more than LoRA.
    """
    config = path.with_name(PEFT_CONFIG)
    if not config.is_file():
        raise PeaError(f"{path}: written by peft, which puts alpha into {PEFT_CONFIG}; copy that beside it")
    try:
        return _alpha_of(path, json.loads(config.read_bytes()))
    except _NO_LORA as error:
        raise PeaError(f"{config}: not the config of a LoRA ({error})") from error


def _alpha_of(path: pathlib.Path, fields: dict[str, Any]) -> AlphaOf:
    # The end of a module's name, or a regular expression for it, as peft reads them.
    stated = (fields.get("alpha_pattern") or {}).items()
    patterns = [(re.compile(rf"(.*\.)?({name})"), float(alpha)) for name, alpha in stated]
    default = None if fields.get("lora_alpha") is None else float(fields["lora_alpha"])
    if odd := [name for name in REFUSED if fields.get(name)]:
        raise PeaError(f"{path}: {odd[0]} is not supported, only plain LoRA")

    def alpha_of(module: str) -> float | None:
        return next((alpha for name, alpha in patterns if name.fullmatch(module)), default)

    return alpha_of


def scalar(path: pathlib.Path, tensor: StoredArray) -> float:
    """The alpha in a tensor of one element.

    Raises:
      PeaError: it has several.
    """
    value = np.asarray(tensor[(slice(None),) * len(tensor.shape)])
    if value.size != 1:
        raise PeaError(f"{path}: an alpha of shape {list(value.shape)} must be one number")
    return float(value.astype(np.float32).reshape(()))


def _fields(path: pathlib.Path, component: str) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="numpy") as file:
        stated = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    prefix = component + "."
    return {name.removeprefix(prefix): value for name, value in stated.items() if name.startswith(prefix)}
