"""Draw pictures with an adapter.

    python -m pea_jax.generate --adapter runs/ru-emoji/adapter --prompt "красное яблоко" --out apple.png

Several prompts give one labelled grid or, with a folder as --out, a picture each; a half-done folder is gone on with:

    ... --prompts prompts.jsonl --seeds 0,1,2,3 --out pictures/

From a picture, into a part of one, along the lines of one, in a style:

    ... --init_image photo.jpg --strength 0.6
    ... --init_image photo.jpg --mask mask.png
    ... --controlnet diffusers/controlnet-canny-sdxl-1.0 --control_image edges.png
    ... --lora style.safetensors:0.8 --lora lcm.safetensors --scheduler lcm --steps 4 --guidance_scale 1

A fine-tune of the base model that is shared as one file:

    ... --base_model tuned.safetensors --base_model_config stabilityai/stable-diffusion-xl-base-1.0

Without an adapter the base model draws English, by its own text encoders:

    python -m pea_jax.generate --base_model assets/teacher --prompt "red apple" --width 64 --height 64 --out apple.png
"""

import hashlib
import itertools
import math
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from pea_jax import command, processes
from pea_jax import mesh as meshes
from pea_jax.config import DTYPES
from pea_jax.data.text_cleaning import is_unicode
from pea_jax.distill.cache import fingerprint
from pea_jax.errors import PeaError
from pea_jax.grids import save_grid
from pea_jax.report import console
from pea_jax.sampling.noise import MOST_SEEDS
from pea_jax.sampling.picture_files import GuideFiles
from pea_jax.sampling.picture_folder import draw_folder
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.sampling.prompt_drawing import Drawing, check_all, draw_all, drawings
from pea_jax.sampling.prompt_files import Prompt, read_prompts
from pea_jax.sampling.schedulers import FROM_CONFIG, SAMPLERS
from pea_jax.text.conditioner import AdapterConditioner, Conditioner
from pea_jax.text.stable_diffusion import load_conditioner
from pea_jax.weights.abstract import without_values
from pea_jax.weights.adapter_layouts import read_config
from pea_jax.weights.locations import locate_base
from pea_jax.weights.lora_alphas import PEFT_CONFIG

ADAPTER = flags.DEFINE_string("adapter", None, "Adapter directory; without one --base_model draws English")
PROMPT = flags.DEFINE_multi_string("prompt", [], "What to draw; may be given several times")
PROMPTS = flags.DEFINE_multi_string("prompts", [], "File of prompts: one a line, or .jsonl; may be given several times")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to draw")
OUT = flags.DEFINE_string("out", None, "PNG file to write, or a folder, with / at its end")
BASE_MODEL = flags.DEFINE_string(
    "base_model", None, "Another base model of the same shape, e.g. a fine-tuned one; without --adapter, any"
)
BASE_MODEL_CONFIG = flags.DEFINE_string(
    "base_model_config",
    None,
    "If the base model is a checkpoint in one file: the folder or Hub id it is a fine-tune of",
)
flags.DEFINE_alias("base", "base_model")
LORA = flags.DEFINE_multi_string("lora", [], "LoRA file, or FILE:SCALE; may be given several times")
CONTROLNET = flags.DEFINE_string("controlnet", None, "Folder or Hub id of a ControlNet")
CONTROL_IMAGE = flags.DEFINE_string("control_image", None, "What the ControlNet is shown")
CONTROL_SCALE = flags.DEFINE_float("control_scale", 1.0, "How much the ControlNet counts")
CONTROL_START = flags.DEFINE_float("control_start", 0.0, "From which share of the steps on it does")
CONTROL_END = flags.DEFINE_float("control_end", 1.0, "Up to which")
INIT_IMAGE = flags.DEFINE_string("init_image", None, "Picture to start from")
STRENGTH = flags.DEFINE_float("strength", 1.0, "Share of the steps that is made from there")
MASK = flags.DEFINE_string("mask", None, "Picture that is white where --init_image is painted over")
STEPS = flags.DEFINE_integer("steps", None, "Sampling steps; by default those of the training config's evaluation")
GUIDANCE = flags.DEFINE_float("guidance_scale", None, "Classifier-free guidance, 1 for none; default as for --steps")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise", lower_bound=0, upper_bound=MOST_SEEDS - 1)
SEEDS = flags.DEFINE_list("seeds", None, "In place of --seed, several: each prompt is drawn with each of them")
SCHEDULER = flags.DEFINE_enum(
    "scheduler", "dpmsolver++", [*SAMPLERS, FROM_CONFIG], f"Sampler; {FROM_CONFIG}: the base model's own"
)
KARRAS = flags.DEFINE_bool("use_karras_sigmas", None, "By default as the base model says")
SPACING = flags.DEFINE_enum(
    "timestep_spacing", None, ["leading", "linspace", "trailing"], "By default as the base model says"
)
WIDTH = flags.DEFINE_integer("width", None, "In pixels", lower_bound=1)
HEIGHT = flags.DEFINE_integer("height", None, "In pixels", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 0, "Most pictures at once, of each process; 0: by their size", lower_bound=0
)
DTYPE = flags.DEFINE_enum("dtype", None, DTYPES, "Of the networks; by default as trained, and float32 on CPUs")


def main() -> None:
    adapter, out, is_folder = _checked_flags()
    seeds, config = _seeds(), read_config(adapter) if adapter else {}
    sampling, height, width = _how_to_draw(training := config.get("training", {}), seeds[0])
    prompts = [*map(Prompt, PROMPT.value), *(prompt for path in PROMPTS.value for prompt in read_prompts(path))]
    wanted = drawings(prompts, negative_prompt=NEGATIVE.value, seeds=seeds, width=width, height=height)
    if not is_folder and len({(each.width, each.height) for each in wanted}) > 1:
        raise PeaError(f"--out {out}: pictures of several sizes do not fit into one grid; name a folder, {out.stem}/")
    guides, models = _guides(), _models(config)
    dtype = DTYPE.value or ("float32" if jax.default_backend() == "cpu" else training.get("dtype", "bfloat16"))
    where: dict[str, Any] = dict(dtype=jnp.dtype(dtype), mesh=meshes.make_mesh(devices=jax.local_devices()))
    with without_values():  # what does not go together is told before anything large is read
        check_all(_loaded(adapter, models, where)[1], wanted, sampling, guides)
    conditioner, pipeline = _loaded(adapter, models, where)
    if is_folder:
        trained = fingerprint(conditioner.params[1]) if adapter else None
        settings = dict(models, adapter=trained, dtype=dtype, **_lora_hashes(models))
        pictures = draw_folder(out, pipeline, conditioner, wanted, sampling, guides, settings)
        console.print(f"{len(pictures)} pictures in {out}")
    elif processes.is_first():
        drawn = draw_all(pipeline, conditioner, wanted, sampling, guides)
        with command.whole_file("--out", out) as partial:
            _write(partial, sorted(drawn, key=lambda pair: pair[0].row))


def _checked_flags() -> tuple[str, pathlib.Path, bool]:
    """The adapter ("": none), what to write and whether that is a folder; what is wrong is told before anything is
    loaded."""
    if not (ADAPTER.value or BASE_MODEL.value) or not OUT.value or not (PROMPT.value or PROMPTS.value):
        raise PeaError("--adapter, --prompt and --out are needed, e.g. --adapter DIR --prompt ... --out picture.png")
    if broken := [text for text in (*PROMPT.value, NEGATIVE.value) if not is_unicode(text)]:
        raise PeaError(f"--prompt {ascii(broken[0])}: not UTF-8; set the terminal to it, or give a file, --prompts")
    out = pathlib.Path(OUT.value)
    is_folder = OUT.value.endswith("/") or os.path.isdir(out)
    (command.check_folder if is_folder else command.check_file)("--out", out)
    if not is_folder and out.suffix.lower() not in ("", ".png"):
        raise PeaError(f"--out {out}: pictures are written as PNG; name {out.with_suffix('.png')}")
    for flag in (GUIDANCE, STRENGTH, CONTROL_SCALE, CONTROL_START, CONTROL_END):
        if flag.value is not None and not math.isfinite(flag.value):
            raise PeaError(f"--{flag.name} {flag.value}: must be a number")
    if (CONTROLNET.value is None) != (CONTROL_IMAGE.value is None):
        raise PeaError("--controlnet and --control_image go together; give both or neither")
    if CONTROLNET.value is None and (CONTROL_SCALE.value, CONTROL_START.value, CONTROL_END.value) != (1, 0, 1):
        raise PeaError("--control_scale, --control_start and --control_end are of a ControlNet; give --controlnet")
    if INIT_IMAGE.value is None and (MASK.value is not None or STRENGTH.value != 1):
        raise PeaError("--mask and --strength are of a picture to start from; give --init_image")
    return ADAPTER.value or "", out, is_folder


def _seeds() -> list[int]:
    if SEEDS.value is None:
        return [SEED.value]
    if flags.FLAGS["seed"].present:
        raise PeaError("--seed and --seeds: give one of them")
    return command.whole_numbers("--seeds", SEEDS.value, MOST_SEEDS - 1)


def _models(config: dict[str, Any]) -> dict[str, Any]:
    """What is drawn with, for `TextToImage.from_pretrained`; the base model from the flags, else as in training."""
    added = dict(loras=[*map(_lora, LORA.value)], controlnet=CONTROLNET.value)
    if BASE_MODEL.value:
        return dict(folder=BASE_MODEL.value, config=BASE_MODEL_CONFIG.value, **added)
    if not config.get("base_model"):
        raise PeaError(f"{ADAPTER.value}: its config.json names no base_model; give --base_model")
    trained_with = config.get("training", {}).get("base_model_config", "")
    return dict(folder=config["base_model"], config=BASE_MODEL_CONFIG.value or str(trained_with), **added)


def _loaded(adapter: str, models: dict[str, Any], where: dict[str, Any]) -> tuple[Conditioner, TextToImage]:
    conditioner = AdapterConditioner.from_pretrained(adapter, **where) if adapter else _english(models, where)
    pipeline = TextToImage.from_pretrained(**models, **where)
    if isinstance(conditioner, AdapterConditioner):
        pipeline.check(conditioner.adapter_dims, adapter)
    return conditioner, pipeline


def _english(models: dict[str, Any], where: dict[str, Any]) -> Conditioner:
    """The base model's own text encoders."""
    base = locate_base(models["folder"], models["config"])
    return load_conditioner(base.weights, config=base.configs, **where)


def _lora(text: str) -> tuple[str, float]:
    """File and scale of FILE or FILE:SCALE."""
    path, _, scale = text.rpartition(":")
    try:
        path, factor = (path, float(scale)) if path else (text, 1.0)
    except ValueError:
        path, factor = text, 1.0  # a colon in the name
    if not pathlib.Path(path).is_file():
        raise PeaError(f"--lora {text}: no such file; give FILE, or FILE:SCALE with a number")
    if not math.isfinite(factor):
        raise PeaError(f"--lora {text}: its scale must be a finite number")
    return path, factor


def _lora_hashes(models: dict[str, Any]) -> dict[str, list[str]]:
    """Of what is in the files, and in peft's beside them: one that is trained on keeps its name."""
    hashes = []
    for path, _ in models["loras"]:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256")
        beside = pathlib.Path(path).with_name(PEFT_CONFIG)
        found.update(beside.read_bytes() if beside.is_file() else b"")
        hashes.append(found.hexdigest())
    return dict(lora_hashes=hashes) if hashes else {}


def _guides() -> GuideFiles:
    paths = dict(image=INIT_IMAGE.value, mask_image=MASK.value, control_image=CONTROL_IMAGE.value)
    guides = GuideFiles(
        {name: path for name, path in paths.items() if path is not None},
        dict(
            controlnet_conditioning_scale=CONTROL_SCALE.value,
            control_guidance_start=CONTROL_START.value,
            control_guidance_end=CONTROL_END.value,
        ),
    )
    guides.describe()  # reads them, before anything large is loaded
    return guides


def _how_to_draw(training: dict[str, Any], seed: int) -> tuple[Sampling, int, int]:
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
        seed=seed,
        scheduler=SCHEDULER.value,
        batch_size=BATCH_SIZE.value,
        strength=STRENGTH.value,
        use_karras_sigmas=KARRAS.value,
        timestep_spacing=SPACING.value,
    )
    return sampling, HEIGHT.value or height, WIDTH.value or width


def _write(path: pathlib.Path, drawn: list[tuple[Drawing, np.ndarray]]) -> None:
    """One picture as it is, several as a grid: a row a prompt, its seeds side by side."""
    if len(drawn) == 1:
        return Image.fromarray(drawn[0][1]).save(path, format="PNG")
    labels, rows = [], []
    for _, group in itertools.groupby(drawn, key=lambda pair: id(pair[0].prompt)):
        some, pictures = zip(*group, strict=True)
        seeds = f"\nseeds {', '.join(str(drawing.seed) for drawing in some)}" if len(some) > 1 else ""
        labels.append(some[0].prompt.prompt + seeds)
        rows.append(pictures)
    save_grid(path, rows, column_titles=[""] * max(map(len, rows)), row_labels=labels)


if __name__ == "__main__":
    command.run(main)
