"""Stage 1: a KL autoencoder for 64x64 pictures, 8x8x16 latents."""

import argparse
import pathlib

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from tools.teacher import corpus, training

STEPS, BATCH, LR, SEED, KL_WEIGHT = 3600, 16, 2e-3, 0, 1e-4


def build() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=64,
        force_upcast=False,
    )


def reconstruction_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 at full, half and quarter size: the coarse terms keep colours right while edges are still blurred."""
    scales = [(prediction, target)] + [(F.avg_pool2d(prediction, k), F.avg_pool2d(target, k)) for k in (2, 4)]
    return sum((a - b).abs().mean() for a, b in scales)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    vae = build().to(memory_format=torch.channels_last)
    pixels = corpus.to_tensor(corpus.load(flags=True))
    run = training.Run(args.workdir / "vae", {"vae": vae}, lr=LR, steps=args.steps, seed=SEED)
    for step in run.steps():
        x = pixels[torch.randint(len(pixels), (BATCH,))].contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        error = reconstruction_loss(vae.decode(posterior.sample()).sample, x)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        run.update(step, error + KL_WEIGHT * kl, reconstruction=error.detach(), kl=kl.detach())
    vae.save_pretrained(args.workdir / "vae" / "model")


if __name__ == "__main__":
    main()
