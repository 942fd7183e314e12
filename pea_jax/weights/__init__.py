"""Files of weights to parameter trees and back.

What is listed here is imported when it is first asked for: parts of this package are used without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pea_jax.weights.diffusers import load_controlnet, load_unet, load_vae
    from pea_jax.weights.torch_names import fill, to_torch_names
    from pea_jax.weights.transformers import load_bert, load_clip_text

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

_MODULES = {
    "fill": "pea_jax.weights.torch_names",
    "load_bert": "pea_jax.weights.transformers",
    "load_clip_text": "pea_jax.weights.transformers",
    "load_controlnet": "pea_jax.weights.diffusers",
    "load_text_encoder": "pea_jax.text.encoders",
    "load_unet": "pea_jax.weights.diffusers",
    "load_vae": "pea_jax.weights.diffusers",
    "to_torch_names": "pea_jax.weights.torch_names",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
