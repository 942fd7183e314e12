"""Pictures of a tiny random Stable Diffusion XL against PyTorch diffusers, from the same noise and embeddings."""

import dataclasses
import subprocess
import sys

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline

from pea_jax.adapter import AdapterDims
from pea_jax.errors import PeaError
from pea_jax.sampling.pipeline import Sampling, TextToImage, noise_for
from pea_jax.text.conditioner import Conditioning
from tests import published_configs, tiny_sdxl
from tests.torch_oracle import assert_same_pictures, nchw, normal, randomised

HEIGHT, WIDTH, PROMPTS, STEPS = 16, 24, 3, 6
SCHEDULERS = {"euler": diffusers.EulerDiscreteScheduler, "dpmsolver++": diffusers.DPMSolverMultistepScheduler}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    randomised(tiny_sdxl.random_unet(12, 10)).save_pretrained(folder / "unet")
    randomised(tiny_sdxl.random_vae(), seed=1).save_pretrained(folder / "vae")
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    return TextToImage.from_pretrained(folder)


def embeds(prompts: int, seed: int) -> Conditioning:
    return Conditioning(normal(prompts, 5, 12, seed=seed), normal(prompts, 10, seed=seed + 1))


CONDITIONING, NEGATIVE = embeds(PROMPTS, 0), embeds(PROMPTS, 2)


def oracle(folder, noise, *, guidance_scale: float, scheduler: str) -> np.ndarray:
    """Pictures `[B, H, W, 3]` float in [0, 1] from diffusers itself."""
    config = diffusers.EulerDiscreteScheduler.from_pretrained(folder / "scheduler").config
    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(folder / "unet"),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        scheduler=SCHEDULERS[scheduler].from_config(config),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt_embeds=torch.from_numpy(CONDITIONING.prompt_embeds),
        pooled_prompt_embeds=torch.from_numpy(CONDITIONING.pooled_prompt_embeds),
        negative_prompt_embeds=torch.from_numpy(NEGATIVE.prompt_embeds),
        negative_pooled_prompt_embeds=torch.from_numpy(NEGATIVE.pooled_prompt_embeds),
        latents=nchw(np.asarray(noise)),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        output_type="np",
    ).images


def draw(pipeline, conditioning=CONDITIONING, negative=NEGATIVE, *, indices=None, size=(HEIGHT, WIDTH), **options):
    """Pictures as int, to be subtracted."""
    sampling = Sampling(**({"steps": STEPS, "guidance_scale": 3.0} | options))
    pictures = pipeline.generate(conditioning, negative, sampling, height=size[0], width=size[1], indices=indices)
    assert pictures.dtype == np.uint8
    return pictures.astype(int)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_pictures_equal_diffusers(folder, pipeline, scheduler, guidance_scale):
    noise = noise_for(7, range(PROMPTS), (HEIGHT // 8, WIDTH // 8, 4))
    ours = draw(pipeline, seed=7, scheduler=scheduler, guidance_scale=guidance_scale)
    expected = oracle(folder, noise, guidance_scale=guidance_scale, scheduler=scheduler)
    assert_same_pictures(ours, expected)


def test_a_model_without_pooled_embeddings(folder, tmp_path):
    """Stable Diffusion 2.1: v-prediction, and an adapter of which the pooled output is not read."""
    config = published_configs.small(published_configs.UNETS["sd-2.1"]) | {"layers_per_block": 1}
    unet = randomised(diffusers.UNet2DConditionModel.from_config(config))
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    unet.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    (tmp_path / "vae").symlink_to(folder / "vae")
    pipeline = TextToImage.from_pretrained(tmp_path)
    pipeline.check(AdapterDims(input_dim=5, hidden_dim=6, pooled_dim=7, output_dim=24), "adapter")
    with pytest.raises(PeaError, match="another base model.*23.*24"):
        pipeline.check(AdapterDims(input_dim=5, hidden_dim=6, pooled_dim=7, output_dim=23), "adapter")
    positive, negative = (normal(PROMPTS, 5, 24, seed=seed) for seed in (0, 1))
    pictures = draw(pipeline, Conditioning(positive), Conditioning(negative), seed=7, scheduler="dpmsolver++")
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        unet=unet,
        scheduler=diffusers.DPMSolverMultistepScheduler.from_pretrained(tmp_path / "scheduler"),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        prompt_embeds=torch.from_numpy(positive),
        negative_prompt_embeds=torch.from_numpy(negative),
        latents=nchw(np.asarray(noise_for(7, range(PROMPTS), (HEIGHT // 8, WIDTH // 8, 4)))),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        output_type="np",
    ).images
    assert_same_pictures(pictures, expected)


def test_an_adapter_of_other_widths_is_refused(pipeline):
    dims = AdapterDims(input_dim=5, hidden_dim=6, pooled_dim=10, output_dim=12)
    pipeline.check(dims, "adapter")
    for wrong in (dict(pooled_dim=11), dict(output_dim=13)):
        with pytest.raises(PeaError, match="adapter: this adapter was made for another base model"):
            pipeline.check(dataclasses.replace(dims, **wrong), "adapter")


def test_guidance_noise_and_scheduler_matter(pipeline):
    """So that the parity above is not of pictures that would come out so in any case."""
    one = draw(pipeline)
    for other in (dict(guidance_scale=1.0), dict(seed=1), dict(scheduler="euler"), dict(negative=embeds(PROMPTS, 9))):
        assert np.abs(draw(pipeline, **other) - one).max() > 20, other


def test_any_number_of_prompts_in_batches_of_one_size(pipeline):
    """Five pictures in batches of three are those drawn alone, and only one program is compiled for them."""
    conditioning, negative = embeds(5, 4), embeds(1, 6)
    some = jax.tree.map(lambda x: x[[4, 1, 2]], conditioning)
    draw(pipeline, some, negative)
    programs = pipeline._draw._cache_size()
    five = draw(pipeline, conditioning, negative, batch_size=3)
    assert pipeline._draw._cache_size() == programs
    np.testing.assert_allclose(draw(pipeline, some, negative, indices=[4, 1, 2]), five[[4, 1, 2]], atol=1)


@pytest.mark.parametrize(("side", "expected"), [(64, 64), (512, 32), (1024, 8), (4096, 1)])
def test_as_many_at_once_as_their_size_lets(pipeline, side, expected):
    assert pipeline.at_once(Sampling(), height=side, width=side) == expected
    assert pipeline.at_once(Sampling(batch_size=5), height=side, width=side) == 5


def test_hidden_tokens_are_not_read(pipeline):
    prompt_embeds, pooled = CONDITIONING.prompt_embeds, CONDITIONING.pooled_prompt_embeds
    mask = np.array([[1, 1, 1, 0, 0]] * PROMPTS)
    other = np.where(mask[..., None], prompt_embeds, 9.0).astype(np.float32)
    masked = [Conditioning(x, pooled, mask) for x in (prompt_embeds, other)]
    one, two = (draw(pipeline, x, x, guidance_scale=1.0) for x in masked)
    np.testing.assert_array_equal(one, two)
    plain = Conditioning(other, pooled)
    assert np.abs(one - draw(pipeline, plain, plain, guidance_scale=1.0)).max() > 5


def test_half_precision_is_near(folder, pipeline):
    half = TextToImage.from_pretrained(folder, dtype=jnp.bfloat16)
    difference = np.abs(draw(half, guidance_scale=1.0) - draw(pipeline, guidance_scale=1.0))
    assert 0 < difference.mean() < 8


def test_noise_belongs_to_the_seed_and_the_index():
    shape = (2, 3, 4)
    noise = noise_for(5, range(6), shape)
    np.testing.assert_array_equal(noise_for(5, [4, 0], shape), noise[np.array([4, 0])])
    assert np.unique(np.asarray(noise)).size == noise.size
    assert (noise_for(6, range(6), shape) != noise).all()
    many = np.asarray(noise_for(0, range(2000), shape))
    np.testing.assert_allclose([many.mean(), many.std()], [0, 1], atol=0.02)


def test_split_over_devices_draws_the_same(folder, tmp_path):
    """On four devices, the weights split over two of them and the batch over all, as on one."""
    command = [sys.executable, "-m", "tests.sampling.four_devices", str(folder), str(tmp_path / "pictures.npy")]
    subprocess.run(command, check=True, timeout=200)
    one, four = np.load(tmp_path / "pictures.npy")
    assert one.shape == (6, 16, 16, 3)
    np.testing.assert_allclose(one.astype(int), four, atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(size=(20, 16)), "16x20.*multiples of 8"),
        (dict(size=(0, 16)), "16x0"),
        (dict(indices=[0, 1]), "2 indices of noise for 3"),
        (dict(scheduler="heun"), "'heun'"),
        (dict(steps=0), "steps=0"),
    ],
)
def test_bad_arguments_are_named(pipeline, options, message):
    with pytest.raises(PeaError, match=message):
        draw(pipeline, **options)
