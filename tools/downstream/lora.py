"""Teaches a LoRA of the embedded teacher a style: the cobalt blue of Gzhel porcelain.

    python -m tools.downstream.lora --workdir runs/gzhel

From the emoji of the training split, redrawn in that style, with English prompts.
"""

import argparse
import pathlib

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from pea_jax.data import read_split
from tools.downstream import pictures, training
from tools.teacher import corpus

STEPS, BATCH, LR, SEED, RANK = 400, 16, 2e-3, 0, 8
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.2", "conv1", "conv2", "conv_out"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    held_out = {concept.key for concept in read_split(f"{corpus.ROOT}/emoji-val-00000.tar", ("en",))}
    emojis = [emoji for emoji in corpus.load(flags=False) if emoji.key not in held_out]
    unet, vae = training.load_frozen()
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))

    def predict(sample: torch.Tensor, timesteps: torch.Tensor, text: dict, rows: torch.Tensor) -> torch.Tensor:
        return unet(sample, timesteps, **text).sample

    targets = np.stack([pictures.gzhel(emoji.pixels) for emoji in emojis])
    latents = training.encode(vae, pictures.to_tensor(targets))
    training.train(args.workdir, unet, predict, latents, emojis, steps=args.steps, batch=BATCH, lr=LR, seed=SEED)
    halves = {name: tensor.half().contiguous() for name, tensor in get_peft_model_state_dict(unet).items()}
    StableDiffusionXLPipeline.save_lora_weights(args.workdir, halves, weight_name="gzhel.safetensors")


if __name__ == "__main__":
    main()
