"""The text half of folders that hold a picture encoder and a text encoder, of any kind, side by side.

Of transformers `ChineseCLIPModel` and `VisionTextDualEncoderModel` (clip-italian, koclip), of the latter's original in
Flax, `HybridCLIP`, and of rinna's Japanese `CLIPModel` and `CLOOBModel`: all keep it under `text_model.`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.weights.config_files import read_config
from pea_jax.weights.text_files import CLIP, Build, TextFiles, open_tensors, text_config

CHINESE = "chinese_clip_text_model"
BERTS = ("bert", CHINESE, "roberta", "xlm-roberta")
IGNORED = r"pooler\..*|vision_model\..*|(visual|text)_projection\..*|logit_scale"


def open_text_half(folder: pathlib.Path, build: Build) -> TextFiles:
    """The text encoder of a folder of both; the rest of the file is passed over.

    Raises:
      PeaError: if a file is missing or broken, or the text encoder is of another kind.
    """
    network = read_config(folder, lambda config: build(fields_of_text_half(config)))
    source, tensors = open_tensors(folder, prefix=r"text_model\.", ignored=IGNORED)
    return TextFiles(network, tensors, source)


def fields_of_text_half(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of its config, with a `model_type`.

    Raises:
      PeaError: if there are none, or the text encoder is of a kind that is not known.
    """
    fields = text_config(config)
    fields.setdefault("model_type", CHINESE if config.get("model_type") == "chinese_clip" else None)
    if (kind := fields["model_type"]) not in (*BERTS, CLIP):
        raise PeaError(f"text_config.model_type={kind!r} is not supported (only {', '.join([*BERTS, CLIP])})")
    return fields
