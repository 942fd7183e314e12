"""Draws the pictures of docs/downstream.md: the emoji teacher with a Russian adapter, steered, styled and repainted.

    python -m tools.downstream.show --adapter runs/ru-emoji/adapter --controlnet runs/controlnet/controlnet \
        --lora assets/downstream/gzhel.safetensors --out docs/downstream

Everything that steers was taught with English prompts, and none of it knows of the adapter.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)

from pea_jax.data import Concept, read_split
from pea_jax.grids import save_grid
from pea_jax.pytorch import PEAdapter
from tools.downstream import pictures, training
from tools.teacher import corpus

SETTINGS = dict(num_inference_steps=12, guidance_scale=3.0, height=64, width=64, output_type="np")
STEERED = ["fox", "teapot", "locomotive", "guitar", "penguin"]
STYLED = ["cat face", "butterfly", "nesting dolls", "owl", "castle"]
# What is there, and what the right half becomes.
REPAINTED = [("red heart", "blue heart"), ("tiger face", "panda"), ("peach", "green apple"), ("cat face", "fox")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("adapter", "controlnet", "lora", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    split = f"{corpus.ROOT}/emoji-train-{{00000..00001}}.tar {corpus.ROOT}/emoji-val-00000.tar"
    concepts = {concept.names["en"]: concept for concept in read_split(split, ("en", "ru"))}
    pipe = StableDiffusionXLPipeline.from_pretrained(training.TEACHER, torch_dtype=torch.float32)
    adapter = PEAdapter.from_pretrained(args.adapter)
    follow_edges(pipe, adapter, concepts, args.controlnet, args.out / "controlnet.png")
    repaint(pipe, adapter, concepts, args.out / "inpainting.png")
    wear_style(pipe, adapter, concepts, args.lora, args.out / "lora.png")  # last: the LoRA stays in the UNet


def draw(pipe: Any, seed: int = 0, **inputs: Any) -> np.ndarray:
    """One picture `[64, 64, 3]` uint8."""
    pipe.set_progress_bar_config(disable=True)
    found = pipe(**inputs, **SETTINGS, generator=torch.Generator().manual_seed(seed)).images[0]
    return np.round(found * 255).astype(np.uint8)


def label(concept: Concept) -> str:
    return f"{concept.names['ru']}\n{concept.names['en']}"


def follow_edges(pipe: Any, adapter: PEAdapter, concepts: dict[str, Concept], folder: pathlib.Path, out: pathlib.Path):
    controlnet = ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32)
    steered = StableDiffusionXLControlNetPipeline(**pipe.components, controlnet=controlnet)
    rows, rng = [], np.random.default_rng(7)
    for name in STEERED:
        concept = concepts[name]
        shown = pictures.edges(pictures.moved(concept.pixels, rng))
        text = adapter.encode(pipe, concept.names["ru"])
        image = torch.from_numpy(shown)[None].permute(0, 3, 1, 2).float() / 255
        english = draw(steered, prompt=name, image=image)
        rows.append([draw(pipe, **text), shown, draw(steered, **text, image=image), english])
    titles = ["no ControlNet", "edges", "Russian", "English"]
    save_grid(out, rows, column_titles=titles, row_labels=[label(concepts[name]) for name in STEERED], scale=2)


def repaint(pipe: Any, adapter: PEAdapter, concepts: dict[str, Concept], out: pathlib.Path) -> None:
    rows, labels = [], []
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    for kept, painted in REPAINTED:
        pixels = concepts[kept].pixels
        text = adapter.encode(pipe, concepts[painted].names["ru"])
        blend = blending(training.encode(pipe.vae, pictures.to_tensor(pixels[None])), mask)
        shaded = cv2.addWeighted(pixels, 0.5, np.repeat(mask[..., None], 3, -1) // 2, 0.5, 0)
        rows.append(
            [pixels, np.where(mask[..., None] > 0, shaded, pixels), draw(pipe, **text, callback_on_step_end=blend)]
        )
        labels.append(label(concepts[painted]))
    save_grid(out, rows, column_titles=["picture", "mask", "repainted"], row_labels=labels, scale=2)


def blending(kept: torch.Tensor, mask: np.ndarray) -> Callable[..., dict[str, torch.Tensor]]:
    """After each step the latents that are not painted are those of the picture, with the noise of the next step.

    What StableDiffusionXLInpaintPipeline does with a UNet that is not made for inpainting; it takes 4 channels alone.
    """
    painted = torch.from_numpy(mask[::8, ::8] > 0)
    noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(1))

    def after_step(pipe: Any, step: int, _: int, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        following = pipe.scheduler.timesteps[step + 1 : step + 2]
        known = pipe.scheduler.add_noise(kept, noise, following) if len(following) else kept
        return {"latents": torch.where(painted, inputs["latents"], known)}

    return after_step


def wear_style(pipe: Any, adapter: PEAdapter, concepts: dict[str, Concept], file: pathlib.Path, out: pathlib.Path):
    texts = [adapter.encode(pipe, concepts[name].names["ru"]) for name in STYLED]
    columns = [[draw(pipe, **text) for text in texts]]
    layers, alphas = pipe.lora_state_dict(file)[:2]
    pipe.load_lora_into_unet(layers, alphas, pipe.unet)
    columns.append([draw(pipe, **text) for text in texts])
    columns.append([draw(pipe, prompt=name) for name in STYLED])
    titles = ["no LoRA", "Russian", "English"]
    rows, labels = list(zip(*columns, strict=True)), [label(concepts[name]) for name in STYLED]
    save_grid(out, rows, column_titles=titles, row_labels=labels, scale=2)


if __name__ == "__main__":
    main()
