"""Draw pictures with an adapter.

    python -m pea_jax.generate --adapter runs/ru-emoji/adapter --prompt "красное яблоко" --out apple.png

Several --prompt give one labelled grid. A fine-tune of the base model that is shared as one file:

    ... --base_model tuned.safetensors --base_model_config stabilityai/stable-diffusion-xl-base-1.0
"""

import pathlib
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from pea_jax import command
from pea_jax import mesh as meshes
from pea_jax.errors import PeaError
from pea_jax.grids import save_grid
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.weights.adapter_layouts import read_config

ADAPTER = flags.DEFINE_string("adapter", None, "Adapter directory")
PROMPT = flags.DEFINE_multi_string("prompt", [], "What to draw; may be given several times")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to draw")
OUT = flags.DEFINE_string("out", None, "PNG file to write")
BASE_MODEL = flags.DEFINE_string("base_model", None, "Another base model of the same shape, e.g. a fine-tuned one")
BASE_MODEL_CONFIG = flags.DEFINE_string(
    "base_model_config",
    None,
    "If the base model is a checkpoint in one file: the folder or Hub id it is a fine-tune of",
)
STEPS = flags.DEFINE_integer("steps", None, "Sampling steps; by default those of the training config's evaluation")
GUIDANCE = flags.DEFINE_float("guidance_scale", None, "Classifier-free guidance; default as for --steps")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise")
SCHEDULER = flags.DEFINE_enum("scheduler", "dpmsolver++", ["dpmsolver++", "euler"], "Sampler")
WIDTH = flags.DEFINE_integer("width", None, "In pixels")
HEIGHT = flags.DEFINE_integer("height", None, "In pixels")


def main() -> None:
    if ADAPTER.value is None or OUT.value is None or not PROMPT.value:
        raise PeaError("--adapter, --prompt and --out are needed, e.g. --adapter DIR --prompt ... --out picture.png")
    out = pathlib.Path(OUT.value)
    command.check_file("--out", out)
    config = read_config(ADAPTER.value)
    sampling, height, width = _how_to_draw(config.get("training", {}))
    base_model, base_model_config = _base_model(config)
    mesh = meshes.make_mesh()
    conditioner = AdapterConditioner.from_pretrained(ADAPTER.value, mesh=mesh)
    pipeline = TextToImage.from_pretrained(base_model, mesh=mesh, config=base_model_config)
    pipeline.check(conditioner.adapter_dims, ADAPTER.value)
    prompts, negative = conditioner.encode_guided(PROMPT.value, NEGATIVE.value)
    pictures = pipeline.generate(prompts, negative, sampling, height=height, width=width)
    with command.whole_file("--out", out) as partial:
        _write(partial, pictures, PROMPT.value)


def _base_model(config: dict[str, Any]) -> tuple[str, str | None]:
    """The base model, and its base_model_config: from the flags, else as the adapter was trained."""
    if BASE_MODEL.value:
        return BASE_MODEL.value, BASE_MODEL_CONFIG.value
    if not config.get("base_model"):
        raise PeaError(f"{ADAPTER.value}: its config.json names no base_model; give --base_model")
    trained_with = config.get("training", {}).get("base_model_config", "")
    return config["base_model"], BASE_MODEL_CONFIG.value or str(trained_with)


def _how_to_draw(training: dict[str, Any]) -> tuple[Sampling, int, int]:
    """Sampling, height and width: from the flags, else as the adapter was judged in training."""
    try:
        evaluation, size = dict(training.get("evaluation", {})), training.get("picture_size", (1024, 1024))
        width, height = map(int, size)
        steps, guidance_scale = int(evaluation.get("steps", 25)), float(evaluation.get("guidance_scale", 7.5))
    except (TypeError, ValueError) as error:
        advice = "copy or export the adapter again"
        raise PeaError(f"{ADAPTER.value}: config.json: training cannot be used ({error}); {advice}") from error
    sampling = Sampling(
        steps=steps if STEPS.value is None else STEPS.value,
        guidance_scale=guidance_scale if GUIDANCE.value is None else GUIDANCE.value,
        seed=SEED.value,
        scheduler=SCHEDULER.value,
    )
    return sampling, HEIGHT.value or height, WIDTH.value or width


def _write(path: pathlib.Path, pictures: np.ndarray, prompts: list[str]) -> None:
    if len(prompts) == 1:
        Image.fromarray(pictures[0]).save(path, format="PNG")
    else:
        save_grid(path, [[picture] for picture in pictures], column_titles=[""], row_labels=prompts)


if __name__ == "__main__":
    command.run(main)
