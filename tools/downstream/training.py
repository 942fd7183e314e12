"""One training of something beside the teacher's frozen UNet, on the loss that the UNet itself was taught with."""

import pathlib
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

from tools.teacher import corpus, training
from tools.teacher.unet import MAX_WEIGHT, SCHEDULE, Conditions, draw_timesteps

TEACHER = corpus.ROOT.parent / "teacher"
SIZE = 64, 64, 0, 0, 64, 64  # what SDXL is told: original size, crop, target size
# (sample, timesteps, conditions, which of the latents) -> predicted noise
Predict = Callable[[torch.Tensor, torch.Tensor, dict, torch.Tensor], torch.Tensor]


def load_frozen() -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """The teacher's UNet and autoencoder in float32."""
    unet = UNet2DConditionModel.from_pretrained(TEACHER / "unet", torch_dtype=torch.float32).requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(TEACHER / "vae", torch_dtype=torch.float32).requires_grad_(False)
    return unet, vae


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled means `[N, 16, 8, 8]` of pictures `[N, 3, 64, 64]`."""
    means = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(64)])
    return means * vae.config.scaling_factor


def train(
    workdir: pathlib.Path,
    trained: torch.nn.Module,
    predict: Predict,
    latents: torch.Tensor,
    emojis: list[corpus.Emoji],
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
) -> None:
    """Teaches `trained`, through `predict`, the latents; `latents[i]` is a picture of `emojis[i % len(emojis)]`.

    Resumes from `workdir`, and leaves a log in it.
    """
    conditions = Conditions(TEACHER, emojis)
    scheduler = DDPMScheduler(**SCHEDULE, clip_sample=False)
    weights = (1 / scheduler.alphas_cumprod).clamp(max=MAX_WEIGHT)
    time_ids = torch.tensor(SIZE, dtype=torch.float32).expand(batch, 6)
    run = training.Run(workdir, dict(trained=trained), lr=lr, steps=steps, seed=seed, warmup=50, weight_decay=0)
    for step in run.steps():
        rows = torch.randint(len(latents), (batch,))
        noise, timesteps = torch.randn(batch, *latents.shape[1:]), draw_timesteps(batch)
        sample = scheduler.add_noise(latents[rows], noise, timesteps)
        tokens, pooled = conditions.draw(rows % len(emojis))
        text = dict(encoder_hidden_states=tokens, added_cond_kwargs=dict(text_embeds=pooled, time_ids=time_ids))
        error = (predict(sample, timesteps, text, rows) - noise).square().mean((1, 2, 3))
        run.update(step, (weights[timesteps] * error).mean(), noise=error.mean().detach())
