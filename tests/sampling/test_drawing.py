"""What drawing starts from, in how many steps and with which sampler: tiny random models against PyTorch diffusers'
pipelines, fed the same noise also where they draw it themselves."""

import sys

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file

from pea_jax.errors import PeaError
from pea_jax.sampling.guides import Guides
from pea_jax.sampling.noise import keys_for
from pea_jax.sampling.pipeline import Sampling, TextToImage, noise_for, step_noise_for
from pea_jax.sampling.schedulers import SAMPLERS
from pea_jax.text.conditioner import Conditioning
from tests.sampling.test_denoiser import (
    CONTROL,
    HEIGHT,
    IMAGE,
    LATENTS,
    MASK,
    POOLED,
    PROMPTS,
    TEXT,
    WIDTH,
    folder,  # noqa: F401
    tensor,
)
from tests.torch_oracle import assert_same_pictures, nchw, randomised

SEED = 8


@pytest.fixture
def theirs(monkeypatch):
    """Draws with a pipeline of diffusers, `[B, H, W, 3]` float in [0, 1]."""

    def draw(kind, root, scheduler, *, prepare=lambda pipe: None, controlnet=None, **call):
        noises = [noise_for(SEED, range(PROMPTS), LATENTS)]
        noises += [step_noise_for(SEED, range(PROMPTS), LATENTS, step) for step in range(9)]
        drawn = iter([nchw(np.asarray(noise)) for noise in noises])
        for module in (kind.__module__, type(scheduler).__module__):
            monkeypatch.setattr(sys.modules[module], "randn_tensor", lambda *_, **__: next(drawn), raising=False)
        pipe = kind(**parts(kind, root, controlnet), scheduler=scheduler)
        prepare(pipe)
        pipe.set_progress_bar_config(disable=True)
        names = ["prompt_embeds", "negative_prompt_embeds"]
        embeds = dict(zip(names, TEXT, strict=True))
        if "XL" in kind.__name__:
            embeds |= dict(zip(["pooled_prompt_embeds", "negative_pooled_prompt_embeds"], POOLED, strict=True))
        arrays = {name: torch.from_numpy(value) for name, value in embeds.items()}
        # Pipelines that draw from a picture have its size.
        size = {} if kind.__name__.endswith("Img2ImgPipeline") else dict(height=HEIGHT, width=WIDTH)
        return pipe(**arrays, **size, **call, output_type="np").images

    return draw


def parts(kind, root, controlnet) -> dict:
    nothing = ["text_encoder", "tokenizer"]
    nothing += ["text_encoder_2", "tokenizer_2"] if "XL" in kind.__name__ else ["safety_checker", "feature_extractor"]
    rest = dict(add_watermarker=False) if "XL" in kind.__name__ else dict(requires_safety_checker=False)
    if controlnet is not None:
        rest["controlnet"] = ControlNetModel.from_pretrained(controlnet)
    unet, vae = UNet2DConditionModel.from_pretrained(root / "unet"), AutoencoderKL.from_pretrained(root / "vae")
    unet.register_to_config(sample_size=64)  # pipelines of 1.5 look at it
    return dict(unet=unet, vae=vae, **dict.fromkeys(nothing), **rest)


def scheduler_of(name: str, **options):
    clips = dict(clip_sample=False) if name in ("ddim", "lcm") else {}
    kind = getattr(diffusers, SAMPLERS[name].class_name)
    return kind(beta_schedule="scaled_linear", steps_offset=1, **clips, **options)


def ours(root, scheduler, guides=Guides(), *, pooled=True, controlnet=None, loras=(), **sampling) -> np.ndarray:  # noqa: B008
    """From a folder as `root` with another scheduler."""
    scheduler.save_pretrained(root / "scheduler")
    pipeline = TextToImage.from_pretrained(root, controlnet=controlnet, loras=loras)
    conditioning, negative = (Conditioning(t, p if pooled else None) for t, p in zip(TEXT, POOLED, strict=True))
    how = Sampling(**sampling, seed=SEED, scheduler="from_config")
    return pipeline.generate(conditioning, negative, how, height=HEIGHT, width=WIDTH, guides=guides).astype(int)


@pytest.mark.parametrize(
    ("kind", "name", "steps", "strength"),
    [
        ("StableDiffusionXLImg2ImgPipeline", "dpmsolver++", 5, 0.65),
        ("StableDiffusionImg2ImgPipeline", "euler_ancestral", 4, 0.5),
    ],
)
def test_image_to_image(folder, theirs, kind, name, steps, strength):  # noqa: F811
    root, scheduler = folder / ("sdxl" if "XL" in kind else "sd15"), scheduler_of(name)
    call = dict(strength=strength, guidance_scale=2.0)
    pictures = ours(root, scheduler, Guides(IMAGE), pooled="XL" in kind, steps=steps, **call)
    expected = theirs(getattr(diffusers, kind), root, scheduler, image=tensor(IMAGE), num_inference_steps=steps, **call)
    assert_same_pictures(pictures, expected)


@pytest.mark.parametrize(
    ("model", "name", "strength"),
    [("sdxl", "lcm", 1.0), ("sdxl", "euler", 0.6), ("inpainting", "dpmsolver++", 0.6), ("sd15", "ddim", 0.6)],
)
def test_inpainting(folder, theirs, model, name, strength):  # noqa: F811
    """A UNet of 4 channels keeps the rest of the picture, one of 9 is shown it."""
    root, scheduler = folder / model, scheduler_of(name)
    kind = diffusers.StableDiffusionInpaintPipeline if model == "sd15" else diffusers.StableDiffusionXLInpaintPipeline
    call = dict(strength=strength, guidance_scale=2.0)
    pictures = ours(root, scheduler, Guides(IMAGE, MASK), pooled=model != "sd15", steps=4, **call)
    shown = dict(image=tensor(IMAGE), mask_image=tensor(MASK))
    assert_same_pictures(pictures, theirs(kind, root, scheduler, **shown, num_inference_steps=4, **call))


def test_controlnet_in_some_of_the_steps(folder, theirs):  # noqa: F811
    root, scheduler = folder / "sdxl", scheduler_of("euler_ancestral")
    part = dict(control_guidance_start=0.2, control_guidance_end=0.6)
    guides = Guides(control_image=CONTROL, controlnet_conditioning_scale=0.7, **part)
    controlnet = root / "controlnet"
    pictures = ours(root, scheduler, guides, controlnet=controlnet, steps=5, guidance_scale=2.0)
    call = dict(image=tensor(CONTROL), controlnet_conditioning_scale=0.7, num_inference_steps=5, guidance_scale=2.0)
    kind = diffusers.StableDiffusionXLControlNetPipeline
    assert_same_pictures(pictures, theirs(kind, root, scheduler, controlnet=controlnet, **part, **call))


def test_turbo(folder, theirs, steps=2):  # noqa: F811
    """Trailing timesteps, no guidance: one half of the batch."""
    root, scheduler = folder / "sdxl", scheduler_of("euler_ancestral", timestep_spacing="trailing")
    pictures = ours(root, scheduler, steps=steps, guidance_scale=0.0)
    kind = diffusers.StableDiffusionXLPipeline
    assert_same_pictures(pictures, theirs(kind, root, scheduler, num_inference_steps=steps, guidance_scale=0.0))


def test_a_consistency_model_that_is_told_the_guidance(folder, theirs, tmp_path):  # noqa: F811
    config = UNet2DConditionModel.load_config(folder / "sdxl" / "unet")
    randomised(UNet2DConditionModel.from_config(config, time_cond_proj_dim=6)).save_pretrained(tmp_path / "unet")
    (tmp_path / "vae").symlink_to(folder / "sdxl" / "vae")
    scheduler = scheduler_of("lcm", original_inference_steps=20)
    pictures = ours(tmp_path, scheduler, steps=3, guidance_scale=4.0)
    kind = diffusers.StableDiffusionXLPipeline
    assert_same_pictures(pictures, theirs(kind, tmp_path, scheduler, num_inference_steps=3, guidance_scale=4.0))
    assert np.abs(ours(tmp_path, scheduler, steps=3, guidance_scale=1.0) - pictures).max() > 5


def test_several_loras_with_weights(folder, theirs, tmp_path):  # noqa: F811
    root, scheduler = folder / "sdxl", scheduler_of("lcm")
    unet = UNet2DConditionModel.from_pretrained(root / "unet")
    loras = {str(tmp_path / "a.safetensors"): 0.5, str(tmp_path / "b.safetensors"): -0.8}
    for seed, path in enumerate(loras):
        save_file(random_lora(unet, seed), path)

    def prepare(pipe):
        for number, path in enumerate(loras):
            pipe.load_lora_weights(path, adapter_name=f"lora{number}")
        pipe.set_adapters(["lora0", "lora1"], list(loras.values()))

    pictures = ours(root, scheduler, loras=list(loras.items()), steps=2, guidance_scale=1.0)
    kind, call = diffusers.StableDiffusionXLPipeline, dict(num_inference_steps=2, guidance_scale=1.0)
    assert_same_pictures(pictures, theirs(kind, root, scheduler, prepare=prepare, **call))
    assert np.abs(ours(root, scheduler, loras=list(loras.items())[:1], steps=2) - pictures).max() > 5


def random_lora(unet: UNet2DConditionModel, seed: int, rank: int = 2) -> dict[str, torch.Tensor]:
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            out, into = module.weight.shape
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(rank, into, generator=generator)
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator)
    return tensors


def test_seeds_of_single_pictures(folder):  # noqa: F811
    """A picture has the noise of its own seed and number in whatever batch, a stochastic sampler's too."""
    pipeline = TextToImage.from_pretrained(folder / "sdxl")
    conditioning, negative = (Conditioning(t, p) for t, p in zip(TEXT, POOLED, strict=True))
    how, size = Sampling(steps=2, guidance_scale=1.0, scheduler="lcm", seed=5), dict(height=HEIGHT, width=WIDTH)
    both = pipeline.generate(conditioning, negative, how, **size, seeds=[7, 5], indices=[0, 3]).astype(int)
    second, negative = (Conditioning(t[1:], p[1:]) for t, p in zip(TEXT, POOLED, strict=True))
    np.testing.assert_allclose(pipeline.generate(second, negative, how, **size, indices=[3])[0], both[1], atol=1)
    other = pipeline.generate(second, negative, how, **size, indices=[2])[0]
    assert np.abs(other - both[1]).max() > 5
    with pytest.raises(PeaError, match="seed=-1: must be from 0 to 4294967295"):
        keys_for([0, -1], [0, 1])


@pytest.mark.parametrize(
    ("guides", "options", "message"),
    [
        (Guides(mask_image=MASK), {}, "^image: mask_image says where to paint"),
        (Guides(), dict(strength=0.5), "^strength=0.5: of drawing from a picture; give an image"),
        (Guides(IMAGE), dict(strength=1.5), "^strength=1.5: must be above 0 and at most 1"),
        (Guides(IMAGE), dict(strength=0.1, steps=9), "^strength=0.1: .* leave one of 9 steps"),
        (Guides(IMAGE, control_guidance_start=0.5, control_guidance_end=0.5), {}, "^control_guidance_start=0.5"),
    ],
)
def test_what_cannot_be_drawn_is_named(folder, guides, options, message):  # noqa: F811
    with pytest.raises(PeaError, match=message):
        ours(folder / "sdxl", scheduler_of("euler"), guides, **options)
