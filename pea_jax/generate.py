"""Draw pictures with an adapter.

    python -m pea_jax.generate --adapter runs/ru-emoji/adapter --prompt "красное яблоко" --out apple.png

Several --prompt give one labelled grid.
"""

import pathlib

import numpy as np
from absl import flags
from PIL import Image

from pea_jax import command
from pea_jax import mesh as meshes
from pea_jax.adapter import read_config
from pea_jax.errors import PeaError
from pea_jax.grids import save_grid
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.weights.locations import locate

ADAPTER = flags.DEFINE_string("adapter", None, "Adapter directory")
PROMPT = flags.DEFINE_multi_string("prompt", [], "What to draw; may be given several times")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to draw")
OUT = flags.DEFINE_string("out", None, "PNG file to write")
BASE_MODEL = flags.DEFINE_string("base_model", None, "Another base model of the same shape, e.g. a fine-tuned one")
STEPS = flags.DEFINE_integer("steps", None, "Sampling steps; by default those of the training config's evaluation")
GUIDANCE = flags.DEFINE_float("guidance_scale", None, "Classifier-free guidance; default as for --steps")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise")
SCHEDULER = flags.DEFINE_enum("scheduler", "dpmsolver++", ["dpmsolver++", "euler"], "Sampler")
WIDTH = flags.DEFINE_integer("width", None, "In pixels")
HEIGHT = flags.DEFINE_integer("height", None, "In pixels")


def main() -> None:
    if ADAPTER.value is None or OUT.value is None or not PROMPT.value:
        raise PeaError("--adapter, --prompt and --out are needed, e.g. --adapter DIR --prompt ... --out picture.png")
    config = read_config(ADAPTER.value)
    defaults = config.get("training", {})
    mesh = meshes.make_mesh()
    conditioner = AdapterConditioner.from_pretrained(ADAPTER.value, mesh=mesh)
    pipeline = TextToImage.from_pretrained(locate(BASE_MODEL.value or config.get("base_model", "")), mesh=mesh)
    pipeline.check(conditioner.adapter_dims, ADAPTER.value)
    prompts, negative = conditioner.encode_guided(PROMPT.value, NEGATIVE.value)
    evaluation, (width, height) = defaults.get("evaluation", {}), defaults.get("picture_size", (1024, 1024))
    sampling = Sampling(
        steps=evaluation.get("steps", 25) if STEPS.value is None else STEPS.value,
        guidance_scale=evaluation.get("guidance_scale", 7.5) if GUIDANCE.value is None else GUIDANCE.value,
        seed=SEED.value,
        scheduler=SCHEDULER.value,
    )
    pictures = pipeline.generate(prompts, negative, sampling, height=HEIGHT.value or height, width=WIDTH.value or width)
    _write(pathlib.Path(OUT.value), pictures, PROMPT.value)


def _write(path: pathlib.Path, pictures: np.ndarray, prompts: list[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(prompts) == 1:
            Image.fromarray(pictures[0]).save(path, format="PNG")
        else:
            save_grid(path, [[picture] for picture in pictures], column_titles=[""], row_labels=prompts)
    except OSError as error:
        raise PeaError(f"--out {path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    command.run(main)
