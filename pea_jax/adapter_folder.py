"""What an adapter directory says beside the weights: config.json and the model card."""

import importlib.metadata
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from pea_jax import __version__
from pea_jax.adapter import PEAdapter
from pea_jax.text.encoders import TextEncoder
from pea_jax.text.joined import JoinedTextEncoder
from pea_jax.weights.hub import REPO_ID
from pea_jax.weights.locations import is_here

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")
POOLING = "mean over all positions, padding included"

CARD = """\
{front_matter}
# PEA adapter: {language} for {base_model}

{parameters:,} trained parameters between the frozen text encoder `{encoder}` and the frozen UNet of `{base_model}`
([PEA-Diffusion](https://arxiv.org/abs/2311.17086)). LoRA, ControlNet and samplers of the base model keep working.

{installation}
In JAX; `.` is the folder of this file, and its name on the Hugging Face Hub goes as well:

    python -m pea_jax.generate --adapter . --prompt "..." --out picture.png

In PyTorch, with any pipeline of `diffusers` for this base model and its relatives:

```python
import torch
from diffusers import StableDiffusion{xl}Pipeline
from pea_jax.pytorch import PEAdapter

pipe = StableDiffusion{xl}Pipeline.{loading}
adapter = PEAdapter.from_pretrained(".")
pipe(**adapter.encode(pipe, "...")).images[0].save("picture.png")
```

| | |
|---|---|
| language | {languages} |
| base model | `{base_model}` |
| text encoder | `{encoder}` |
| training data | {data} |
| context length | {context_length} tokens, padded with `{pad_token}`, all of them pooled |
| training steps | {step} of batch size {batch_size} |
| loss weights | {loss} |
| licence | {licence} |

`adapter.safetensors` has the published PyTorch names and layouts; `config.json` holds the whole training configuration.
"""


PUBLISHED_CARD = """\
{front_matter}
# PEA adapter `{source}`

{parameters:,} parameters ([PEA-Diffusion](https://arxiv.org/abs/2311.17086)), brought in from a PyTorch file.

{installation}
| | |
|---|---|
| text encoder | {encoder} |
| base model | {base_model} |
| licence | {licence} |
"""

INSTALLATION = """\
In a clone of pea_jax, with Python 3.11 or newer:

    pip install -e '.[hub]'  # in PyTorch, or if the text encoder is there as .bin alone: '.[torch,transformers]'
"""


def save(
    folder: pathlib.Path,
    config: ConfigDict,
    adapter: PEAdapter,
    encoder: TextEncoder | JoinedTextEncoder,
    step: int,
    licence: str | None = None,
) -> None:
    """Write the adapter directory: weights, config.json and model card.

    Args:
      folder: is replaced if it exists.
      config: of the training run.
      adapter: the adapter.
      encoder: the text encoder that it was trained behind.
      step: how many steps it was trained for.
      licence: of the weights, as the Hub names it, e.g. apache-2.0; None: its owner has not said.
    """
    description = describe(config, adapter, encoder.describe(), step) | _stated(licence)
    adapter.save_pretrained(folder, description, card(description, _size(adapter)))


def describe(config: ConfigDict, adapter: PEAdapter, encoder: dict[str, Any], step: int) -> dict[str, Any]:
    """`config.json` of an adapter: all that is needed to use it, and what it was trained with."""
    return dict(
        system="pea",
        language=config.language,
        base_model=config.base_model,
        text_encoder={**encoder, "id": config.text_encoder.id},
        pooling=POOLING,
        dimensions=dict(vars(adapter.dims)),
        step=step,
        training=json.loads(config.to_json()),
        versions=_versions(),
    )


def save_published(
    folder: pathlib.Path,
    adapter: PEAdapter,
    source: str,
    config: ConfigDict | None,
    licence: str | None = None,
    text_encoder: Mapping[str, Any] | None = None,
) -> None:
    """Write the adapter directory of an adapter that was published as a PyTorch file.

    Args:
      folder: is replaced if it holds an adapter.
      adapter: what is in the file.
      source: its name.
      config: names the language, the text encoder and the base model that it goes with; None: they are not known.
      licence: as for `save`.
      text_encoder: what is known of it, with how it pads (see `with_padding`); by default what the config says.
    """
    description: dict[str, Any] = dict(
        system="pea", published_as=source, dimensions=dict(vars(adapter.dims)), versions=_versions()
    ) | _stated(licence)
    if adapter.dims.pooled_dim is not None:
        description["pooling"] = POOLING
    if config is not None:
        known = json.loads(config.to_json())
        description |= {name: known[name] for name in ("language", "base_model", "text_encoder")}
        if text_encoder is not None:
            description["text_encoder"] = dict(text_encoder)
        # How it is drawn with, unless a flag says otherwise.
        description["training"] = {name: known[name] for name in ("picture_size", "evaluation")}
    text = PUBLISHED_CARD.format(
        front_matter=front_matter(description),
        parameters=_size(adapter),
        source=source,
        encoder=description.get("text_encoder", {}).get("id", "not stated"),
        base_model=description.get("base_model", "not stated"),
        licence=description.get("license", "not stated"),
        installation=INSTALLATION,
    )
    adapter.save_pretrained(folder, description, text)


def card(description: dict[str, Any], parameters: int) -> str:
    """The model card `README.md`, with the front matter that the Hub reads."""
    encoder, training = description["text_encoder"], description["training"]
    return CARD.format(
        front_matter=front_matter(description),
        xl="" if description["dimensions"]["pooled_dim"] is None else "XL",
        data=", ".join(f"`{pathlib.Path(name).name}`" for name in training["data"]["train"].split()),
        base_model=description["base_model"],
        loading=_loading(description["base_model"], training.get("base_model_config")),
        language=description["language"],
        languages=", ".join(_languages(description)),
        parameters=parameters,
        encoder=encoder["id"],
        context_length=encoder["context_length"],
        pad_token=encoder["pad_token"],
        step=description["step"],
        batch_size=training["batch_size"],
        loss=", ".join(f"{name} {weight}" for name, weight in training["loss"].items() if name != "hybrid"),
        licence=description.get("license", "not stated"),
        installation=INSTALLATION,
    )


def _loading(base_model: str, config: str | None) -> str:
    """How diffusers is told to load it; one in a single file is what has its config elsewhere.

    Where no dtype is named, of files in half precision the UNet alone comes in float32, and the pipeline cannot draw.
    """
    name, given = (json.dumps(each, ensure_ascii=False) for each in (base_model, config))  # with the quotes of Python
    dtype = "torch_dtype=torch.float32"
    return f"from_single_file({name}, config={given}, {dtype})" if config else f"from_pretrained({name}, {dtype})"


def front_matter(description: dict[str, Any]) -> str:
    """What the Hub reads of a card; a base model only if it can be found there."""
    base_model, languages = description.get("base_model"), _languages(description)
    lines = ["---", "library_name: pea_jax", "pipeline_tag: text-to-image"]
    if licence := description.get("license"):
        lines.append(f"license: {licence}")
    if base_model and REPO_ID.fullmatch(base_model) and not is_here(base_model):
        lines += [f"base_model: {base_model}", "base_model_relation: adapter"]
    quoted = (json.dumps(language, ensure_ascii=False) for language in languages)  # a bare no is false
    lines += ["language:", *(f"- {language}" for language in quoted)] if languages else []
    return "\n".join([*lines, "tags:", "- text-to-image", "- pea-diffusion", "---", ""])


def _languages(description: dict[str, Any]) -> list[str]:
    """The adapter's own first, and then those that it was trained on beside; none if they are not known."""
    beside = description.get("training", {}).get("data", {}).get("more_languages", "")
    return list(dict.fromkeys([description["language"], *beside.split()])) if "language" in description else []


def _stated(licence: str | None) -> dict[str, str]:
    return {} if licence is None else {"license": licence}


def _versions() -> dict[str, str]:
    return dict(pea_jax=__version__) | {name: importlib.metadata.version(name) for name in PACKAGES}


def _size(adapter: PEAdapter) -> int:
    return sum(x.size for x in jax.tree.leaves(nnx.state(adapter)))
