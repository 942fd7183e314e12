"""The alpha of a LoRA's layers: a tensor beside the factors, or in the metadata, where diffusers keeps peft's."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import safe_open

from pea_jax.errors import PeaError
from pea_jax.weights.stored import StoredArray

METADATA = "lora_adapter_metadata"
REFUSED = ("use_dora", "use_rslora", "lora_bias")


def stated_alphas(path: pathlib.Path, component: str) -> Callable[[str], float | None]:
    """A function from a module's name to the alpha that the metadata states for it, None if it states none.

    Raises:
      PeaError: the metadata are broken, or state what is more than LoRA.
    """
    try:
        fields = _fields(path, component)
        patterns = {name: float(alpha) for name, alpha in (fields.get("alpha_pattern") or {}).items()}
        default = None if fields.get("lora_alpha") is None else float(fields["lora_alpha"])
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PeaError(f"{path}: the metadata {METADATA!r} are not those of a LoRA ({error})") from error
    if odd := [name for name in REFUSED if fields.get(name)]:
        raise PeaError(f"{path}: {odd[0]} is not supported, only plain LoRA")

    def alpha_of(module: str) -> float | None:
        return next((alpha for name, alpha in patterns.items() if f".{module}".endswith(f".{name}")), default)

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
