"""What an adapter directory says beside the weights: config.json and the model card."""

import importlib.metadata
import json
import pathlib
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from pea_jax import __version__
from pea_jax.adapter import PEAdapter
from pea_jax.text.encoders import TextEncoder

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")

CARD = """\
---
library_name: pea_jax
base_model: {base_model}
language:
- {language}
tags:
- text-to-image
- pea-diffusion
---

# PEA adapter: {language} for {base_model}

{parameters:,} trained parameters between the frozen text encoder `{encoder}` and the frozen UNet of `{base_model}`
([PEA-Diffusion](https://arxiv.org/abs/2311.17086)). LoRA, ControlNet and samplers of the base model keep working.

    python -m pea_jax.generate --adapter . --prompt "..." --out picture.png

| | |
|---|---|
| language | {language} |
| context length | {context_length} tokens, padded with `{pad_token}`, all of them pooled |
| training steps | {step} of batch size {batch_size} |
| loss weights | {loss} |

`adapter.safetensors` has the published PyTorch names and layouts; `config.json` holds the whole training configuration.
"""


def save(folder: pathlib.Path, config: ConfigDict, adapter: PEAdapter, encoder: TextEncoder, step: int) -> None:
    """Write the adapter directory: weights, config.json and model card.

    Args:
      folder: is replaced if it exists.
      config: of the training run.
      adapter: the adapter.
      encoder: the text encoder that it was trained behind.
      step: how many steps it was trained for.
    """
    description = describe(config, adapter, encoder.describe(), step)
    parameters = sum(x.size for x in jax.tree.leaves(nnx.state(adapter)))
    adapter.save_pretrained(folder, description, card(description, parameters))


def describe(config: ConfigDict, adapter: PEAdapter, encoder: dict[str, Any], step: int) -> dict[str, Any]:
    """`config.json` of an adapter: all that is needed to use it, and what it was trained with."""
    versions = dict(pea_jax=__version__) | {name: importlib.metadata.version(name) for name in PACKAGES}
    return dict(
        system="pea",
        language=config.language,
        base_model=config.base_model,
        text_encoder={**encoder, "id": config.text_encoder.id},
        pooling="mean over all positions, padding included",
        dimensions=dict(vars(adapter.dims)),
        step=step,
        training=json.loads(config.to_json()),
        versions=versions,
    )


def card(description: dict[str, Any], parameters: int) -> str:
    """The model card `README.md`, with the front matter that the Hub reads."""
    encoder, training = description["text_encoder"], description["training"]
    return CARD.format(
        base_model=description["base_model"],
        language=description["language"],
        parameters=parameters,
        encoder=encoder["id"],
        context_length=encoder["context_length"],
        pad_token=encoder["pad_token"],
        step=description["step"],
        batch_size=training["batch_size"],
        loss=", ".join(f"{name} {weight}" for name, weight in training["loss"].items() if name != "hybrid"),
    )
