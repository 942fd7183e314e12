"""Files of weights to parameter trees and back."""

import importlib
from typing import Any

from pea_jax.weights.diffusers import load_controlnet, load_unet, load_vae
from pea_jax.weights.torch_names import fill, to_torch_names

__all__ = [
    "fill",
    "load_bert",
    "load_clip_text",
    "load_controlnet",
    "load_text_encoder",
    "load_unet",
    "load_vae",
    "to_torch_names",
]

# Imported when first asked for: `text` lies above this package.
_ELSEWHERE = {
    "load_bert": "pea_jax.weights.transformers",
    "load_clip_text": "pea_jax.weights.transformers",
    "load_text_encoder": "pea_jax.text.encoders",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE[name]), name)
