"""A whole Stable Diffusion 1.5 of random weights, as a diffusers folder and as a checkpoint in one file."""

import pathlib

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

from tests.tiny_text_models import CONTEXT, VOCABULARY, clip_tokenizer, random_clip
from tests.torch_oracle import randomised
from tests.weights.test_single_file import clip_names, unet_names, vae_names

WIDTH = 16


def save(folder: pathlib.Path) -> None:
    """One text encoder, nothing pooled; pictures of even sizes, latents half as large."""
    text = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=20, num_hidden_layers=1)
    random_clip(
        with_projection=False, **text, num_attention_heads=2, max_position_embeddings=CONTEXT, eos_token_id=2
    ).save_pretrained(folder / "text_encoder")
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=4, block_out_channels=(4, 8), layers_per_block=1, cross_attention_dim=WIDTH, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=2,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, norm_num_groups=2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    randomised(unet).save_pretrained(folder / "unet")
    randomised(vae).save_pretrained(folder / "vae")
    DPMSolverMultistepScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")


def save_in_one_file(folder: pathlib.Path, path: pathlib.Path) -> None:
    """The weights of `folder` under the names of the first implementation, as fine-tunes are shared."""
    tensors = unet_names(UNet2DConditionModel.from_pretrained(folder / "unet"))
    tensors |= vae_names(AutoencoderKL.from_pretrained(folder / "vae"), "first_stage_model.")
    tensors |= clip_names(CLIPTextModel.from_pretrained(folder / "text_encoder"), "cond_stage_model.transformer.")
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
