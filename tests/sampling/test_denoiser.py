"""Inpainting and ControlNet, of tiny random models, against PyTorch diffusers' pipelines from the same noise."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

from pea_jax.errors import PeaError
from pea_jax.sampling.guides import Guides
from pea_jax.sampling.pipeline import Sampling, TextToImage, noise_for
from pea_jax.text.conditioner import Conditioning
from tests.torch_oracle import assert_same_pictures, nchw, normal, randomised

HEIGHT, WIDTH, PROMPTS, STEPS, GUIDANCE = 16, 24, 2, 3, 2.0
LATENTS = (HEIGHT // 2, WIDTH // 2, 4)
TEXT = [normal(PROMPTS, 5, 12, seed=seed) for seed in (0, 1)]
POOLED = [normal(PROMPTS, 10, seed=seed) for seed in (2, 3)]
RANDOM = np.random.default_rng(4)
IMAGE, CONTROL = RANDOM.integers(0, 256, (2, PROMPTS, HEIGHT, WIDTH, 3), np.uint8)
MASK = RANDOM.integers(0, 256, (PROMPTS, HEIGHT, WIDTH), np.uint8)
EMBEDDING = dict(conditioning_embedding_out_channels=(3, 5))


def certain(vae: AutoencoderKL) -> AutoencoderKL:
    """Its latents are the mean: diffusers draws them, and so loses what would be the same noise."""
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -30
    return vae


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stable Diffusion XL with a ControlNet, its inpainting version, and Stable Diffusion 1.5."""
    folder = tmp_path_factory.mktemp("models")
    sd15 = UNet2DConditionModel(
        block_out_channels=(8,), layers_per_block=1, cross_attention_dim=12, attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
    )  # fmt: skip
    pooled = dict(addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=34)
    sdxl = UNet2DConditionModel.from_config(sd15.config, **pooled)
    inpainting = UNet2DConditionModel.from_config(sdxl.config, in_channels=9)
    shuffle = ControlNetModel.from_unet(sd15, **EMBEDDING)
    shuffle = ControlNetModel.from_config(shuffle.config, global_pool_conditions=True)
    vae = AutoencoderKL(
        block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=2,
        up_block_types=("UpDecoderBlock2D",) * 2, mid_block_add_attention=False,
    )  # fmt: skip
    unets = dict(sdxl=sdxl, inpainting=inpainting, sd15=sd15)
    for seed, (name, unet) in enumerate(unets.items()):
        randomised(unet, seed).save_pretrained(folder / name / "unet")
        certain(randomised(vae, seed=5)).save_pretrained(folder / name / "vae")
        scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading")
        scheduler.save_pretrained(folder / name / "scheduler")
    randomised(ControlNetModel.from_unet(sdxl, **EMBEDDING), seed=6).save_pretrained(folder / "sdxl" / "controlnet")
    randomised(shuffle, seed=7).save_pretrained(folder / "sd15" / "controlnet")
    return folder


def theirs(kind, root, controlnet=None, **pictures) -> np.ndarray:
    """What a pipeline of diffusers draws, `[B, H, W, 3]` float in [0, 1]."""
    parts = dict(
        vae=AutoencoderKL.from_pretrained(root / "vae"),
        unet=UNet2DConditionModel.from_pretrained(root / "unet"),
        scheduler=diffusers.EulerDiscreteScheduler.from_pretrained(root / "scheduler"),
        text_encoder=None,
        tokenizer=None,
    )
    if controlnet is not None:
        parts["controlnet"] = ControlNetModel.from_pretrained(controlnet)
    embeds = dict(prompt_embeds=TEXT[0], negative_prompt_embeds=TEXT[1])
    if "XL" in kind.__name__:
        parts |= dict(text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
        embeds |= dict(pooled_prompt_embeds=POOLED[0], negative_pooled_prompt_embeds=POOLED[1])
    else:
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = kind(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        **{name: torch.from_numpy(value) for name, value in embeds.items()},
        **pictures,
        latents=nchw(np.asarray(noise_for(8, range(PROMPTS), LATENTS))),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
    ).images


def ours(pipeline: TextToImage, guides: Guides, *, pooled: bool = True) -> np.ndarray:
    conditioning, negative = (Conditioning(t, p if pooled else None) for t, p in zip(TEXT, POOLED, strict=True))
    sampling = Sampling(steps=STEPS, guidance_scale=GUIDANCE, scheduler="euler", seed=8)
    return pipeline.generate(conditioning, negative, sampling, height=HEIGHT, width=WIDTH, guides=guides).astype(int)


def tensor(pictures: np.ndarray) -> torch.Tensor:
    return nchw(pictures if pictures.ndim == 4 else pictures[..., None]).float() / 255


def test_inpainting(folder):
    pipeline = TextToImage.from_pretrained(folder / "inpainting")
    pictures = ours(pipeline, Guides(image=IMAGE, mask_image=MASK))
    shown = dict(image=tensor(IMAGE), mask_image=tensor(MASK), strength=1.0)
    assert_same_pictures(pictures, theirs(diffusers.StableDiffusionXLInpaintPipeline, folder / "inpainting", **shown))
    for other in (Guides(IMAGE[::-1], MASK), Guides(IMAGE, 255 - MASK)):
        assert np.abs(ours(pipeline, other) - pictures).max() > 5


def test_controlnet(folder):
    root = folder / "sdxl"
    pipeline = TextToImage.from_pretrained(root, controlnet=root / "controlnet")
    pictures = ours(pipeline, Guides(control_image=CONTROL, controlnet_conditioning_scale=0.7))
    shown = dict(image=tensor(CONTROL), controlnet_conditioning_scale=0.7)
    expected = theirs(diffusers.StableDiffusionXLControlNetPipeline, root, root / "controlnet", **shown)
    assert_same_pictures(pictures, expected)
    mixed = ours(pipeline, Guides(control_image=CONTROL, controlnet_conditioning_scale=[0.7, 0.0]))
    np.testing.assert_allclose(mixed[0], pictures[0], atol=1)
    assert np.abs(mixed[1] - pictures[1]).max() > 5


def test_controlnet_that_pools_its_residuals(folder):
    """Those of Stable Diffusion 1.5 trained on shuffled pictures; they leave the unconditional half alone."""
    root = folder / "sd15"
    pipeline = TextToImage.from_pretrained(root, controlnet=root / "controlnet")
    pictures = ours(pipeline, Guides(control_image=CONTROL), pooled=False)
    shown = dict(image=tensor(CONTROL))
    assert_same_pictures(
        pictures, theirs(diffusers.StableDiffusionControlNetPipeline, root, root / "controlnet", **shown)
    )


def test_inpainting_with_a_controlnet(folder):
    root, controlnet = folder / "inpainting", folder / "sdxl" / "controlnet"
    pipeline = TextToImage.from_pretrained(root, controlnet=controlnet)
    pictures = ours(pipeline, Guides(IMAGE, MASK, CONTROL))
    shown = dict(image=tensor(IMAGE), mask_image=tensor(MASK), control_image=tensor(CONTROL), strength=1.0)
    expected = theirs(diffusers.StableDiffusionXLControlNetInpaintPipeline, root, controlnet, **shown)
    assert_same_pictures(pictures, expected)


def test_what_is_missing_or_too_much_is_named(folder):
    root = folder / "sdxl"
    plain, inpainting = TextToImage.from_pretrained(root), TextToImage.from_pretrained(folder / "inpainting")
    steered = TextToImage.from_pretrained(root, controlnet=root / "controlnet")
    for pipeline, guides, message in (
        (inpainting, Guides(), r"^image: a UNet made for inpainting \(9 input channels\) cannot draw without it"),
        (inpainting, Guides(image=IMAGE), "^mask_image: a UNet made for inpainting"),
        (plain, Guides(mask_image=MASK), "^image: mask_image says where to paint, and there is nothing to paint on"),
        (plain, Guides(control_image=CONTROL), "^control_image: nothing here looks at it, it takes a ControlNet$"),
        (steered, Guides(), "^control_image: a ControlNet cannot draw without it"),
        (steered, Guides(control_image=CONTROL[:, 1:]), r"control_image: of shape \[2, 15, 24, 3\]"),
    ):
        with pytest.raises(PeaError, match=message):
            ours(pipeline, guides)


def test_networks_of_different_base_models(folder, tmp_path):
    other = ControlNetModel.load_config(folder / "sd15" / "controlnet")
    ControlNetModel.from_config(other, cross_attention_dim=6).save_pretrained(tmp_path / "controlnet")
    with pytest.raises(PeaError, match="ControlNet was made for another base model: its prompt_embed_dim are 6, not"):
        TextToImage.from_pretrained(folder / "sd15", controlnet=tmp_path / "controlnet")
    config = UNet2DConditionModel.load_config(folder / "sdxl" / "unet")
    UNet2DConditionModel.from_config(config, in_channels=8).save_pretrained(tmp_path / "unet")
    for name in ("vae", "scheduler"):
        (tmp_path / name).symlink_to(folder / "sdxl" / name)
    with pytest.raises(PeaError, match="takes 8 channels, the autoencoder makes 4: .* or 9 for inpainting"):
        TextToImage.from_pretrained(tmp_path)
