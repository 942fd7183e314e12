"""Teaches a ControlNet of the embedded teacher to follow Canny edges.

    python -m tools.downstream.controlnet --workdir runs/controlnet

It is shown every emoji mirrored, turned, smaller and shifted, which the teacher by itself never draws, with the edges
of that picture and an English prompt.
"""

import argparse
import pathlib

import numpy as np
import torch
from diffusers import ControlNetModel

from tools.downstream import pictures, training
from tools.teacher import corpus

STEPS, BATCH, LR, SEED, VARIANTS = 4000, 16, 5e-4, 0, 2
EMBEDDING = 16, 32, 64, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    emojis, rng = corpus.load(flags=False), np.random.default_rng(SEED)
    unet, vae = training.load_frozen()
    targets = np.stack([pictures.moved(emoji.pixels, rng) for _ in range(VARIANTS) for emoji in emojis])
    shown = torch.from_numpy(np.stack([pictures.edges(target)[..., 0] for target in targets]))
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=EMBEDDING).requires_grad_(True)

    def predict(sample: torch.Tensor, timesteps: torch.Tensor, text: dict, rows: torch.Tensor) -> torch.Tensor:
        outlines = (shown[rows] / 255.0)[:, None].expand(-1, 3, -1, -1)
        down, mid = controlnet(sample, timesteps, controlnet_cond=outlines, return_dict=False, **text)
        residuals = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
        return unet(sample, timesteps, **residuals, **text).sample

    latents = training.encode(vae, pictures.to_tensor(targets))
    training.train(args.workdir, controlnet, predict, latents, emojis, steps=args.steps, batch=BATCH, lr=LR, seed=SEED)
    controlnet.half().save_pretrained(args.workdir / "controlnet")


if __name__ == "__main__":
    main()
