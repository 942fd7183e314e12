"""A whole Stable Diffusion XL folder of random weights, small enough to train for a few steps in a test."""

import pathlib

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel

from tests import tiny_text_models


def random_unet(cross_attention_dim: int, pooled_dim: int, *, levels: int = 2) -> UNet2DConditionModel:
    """Of three levels, as the published ones, or of two, which compile in half the time."""
    torch.manual_seed(0)
    attending = levels - 1  # all but the first
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 24)[:levels],
        layers_per_block=1,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attending),
        up_block_types=(*["CrossAttnUpBlock2D"] * attending, "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=(1, 2, 3)[:levels],
        cross_attention_dim=cross_attention_dim,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=pooled_dim + 24,
        use_linear_projection=True,
        norm_num_groups=4,
    )


def random_vae() -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
        scaling_factor=0.5,
    )


def save(folder: pathlib.Path) -> None:
    """Pictures of 64x64, latents of 8x8x4."""
    first, second = tiny_text_models.save_sdxl_text_models(folder)
    width = first.config.hidden_size + second.config.hidden_size
    random_unet(width, second.config.projection_dim).save_pretrained(folder / "unet")
    random_vae().save_pretrained(folder / "vae")
    DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    ).save_pretrained(folder / "scheduler")
