"""Folders with the configs of Stable Diffusion XL and of a text encoder, all that `pea_jax.plan` reads.

    python -m benchmarks.sdxl_configs build/sdxl

For machines without a network. The sizes are those of `benchmarks.networks`; the tokenizers are the embedded model's,
whose words are other ones, which changes no shape.
"""

import argparse
import json
import pathlib
import shutil
from typing import Any

from benchmarks.networks import SIZES

ASSETS = pathlib.Path(__file__).resolve().parents[1] / "assets"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    write(folder)
    print(f"--config.base_model={folder / 'base'} --config.text_encoder.id={folder / 'text_encoder'}")


def write(folder: pathlib.Path) -> None:
    """`folder/base` in diffusers' layout and `folder/text_encoder` in transformers'."""
    networks, teacher = SIZES["sdxl"], ASSETS / "teacher"
    length = networks.text_encoder["max_position_embeddings"]
    for part in ("unet", "vae", "text_encoder"):
        _write(folder / "base" / part / "config.json", getattr(networks, part))
    projects = dict(architectures=["CLIPTextModelWithProjection"])
    _write(folder / "base" / "text_encoder_2" / "config.json", projects | networks.text_encoder_2)
    _write(folder / "base" / "scheduler" / "scheduler_config.json", networks.scheduler)
    shutil.copy(teacher / "model_index.json", folder / "base")
    for part in ("tokenizer", "tokenizer_2"):
        settings = json.loads((teacher / part / "tokenizer_config.json").read_text())
        _write(folder / "base" / part / "tokenizer_config.json", settings | dict(model_max_length=length))
        shutil.copy(teacher / part / "tokenizer.json", folder / "base" / part)
    _write(folder / "text_encoder" / "config.json", dict(architectures=["XLMRobertaModel"]) | networks.student)
    shutil.copy(ASSETS / "multilingual-e5-small" / "tokenizer.json", folder / "text_encoder")


def _write(path: pathlib.Path, fields: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields, indent=2) + "\n")


if __name__ == "__main__":
    main()
