"""The seven uses: what the example loads, `diffusers` draws with the adapter's conditioning, and JAX draws the same."""

import functools
import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file

from pea_jax.sampling.guides import Guides
from pea_jax.sampling.pipeline import Sampling, TextToImage, noise_for, step_noise_for
from tests.torch_oracle import assert_same_pictures, nchw

PROMPTS, NEGATIVE = ["красное яблоко", "кот"], "дождь"
HEIGHT, WIDTH, SEED = 16, 24, 8
LATENTS = (HEIGHT // 8, WIDTH // 8, 4)
RANDOM = np.random.default_rng(4)
IMAGE, CONTROL = RANDOM.integers(0, 256, (2, 1, HEIGHT, WIDTH, 3), np.uint8)
MASK = np.repeat(np.arange(WIDTH) > 9, HEIGHT).reshape(1, WIDTH, HEIGHT).swapaxes(1, 2)


@pytest.fixture
def drawn(downstream, example, monkeypatch, tmp_path) -> Callable[..., np.ndarray]:
    """What the pipeline that an example loads draws, `[2, H, W, 3]` in [0, 1]; its `main` is run as well.

    The scheduler in the module `noise_of` of diffusers draws at its steps what JAX's draws.
    """

    def draw(script: str, *flags: str, steps: int, guidance_scale: float, noise_of: str = "", **shown: Any):
        module, out = example(script), tmp_path / "out.png"
        numbers = [f"--steps={steps}", f"--guidance_scale={guidance_scale}", f"--width={WIDTH}", f"--height={HEIGHT}"]
        texts = [f"--adapter={downstream.adapter}", f"--prompt={PROMPTS[0]}", f"--out={out}"]
        args = module.PARSER.parse_args([*flags, *numbers, *texts])
        module.main(args)
        assert Image.open(out).size == (WIDTH, HEIGHT) and np.std(Image.open(out)) > 10
        if noise_of:
            monkeypatch.setattr(f"diffusers.schedulers.{noise_of}.randn_tensor", StepNoise())
        return theirs(module.load(args), downstream.torch_adapter, steps, guidance_scale, **shown)

    return draw


class StepNoise:
    """The noise of a stochastic sampler's steps, one after the other."""

    def __init__(self):
        self.steps = itertools.count()

    def __call__(self, shape: tuple[int, ...], **_: Any) -> torch.Tensor:
        return nchw(np.asarray(step_noise_for(SEED, range(shape[0]), LATENTS, next(self.steps))))


def theirs(pipe: Any, adapter: Any, steps: int, guidance_scale: float, **shown: Any) -> np.ndarray:
    conditioning = adapter.encode(pipe, PROMPTS, NEGATIVE, guidance=guidance_scale > 1)
    assert conditioning.keys() <= inspect.signature(pipe.__call__).parameters.keys()
    assert len(conditioning) == (4 if guidance_scale > 1 else 2)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        **conditioning,
        **shown,
        latents=nchw(np.asarray(noise_for(SEED, range(2), LATENTS))),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        output_type="np",
    ).images


def ours(world: Any, model: str, steps: int, guidance_scale: float, guides: Guides | None = None, **how: Any):
    names = ("controlnet", "loras")
    pipeline = TextToImage.from_pretrained(
        world.folder / model, **{name: how.pop(name) for name in names if name in how}
    )
    sampling = Sampling(steps=steps, guidance_scale=guidance_scale, seed=SEED, **how)
    text = world.conditioner.encode_guided(PROMPTS, NEGATIVE)
    return pipeline.generate(*text, sampling, height=HEIGHT, width=WIDTH, guides=guides or Guides()).astype(int)


def assert_same(pictures: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(expected[0] - expected[1]).max() > 0.05, "the prompts do not matter"
    assert_same_pictures(pictures, expected)


def tensor(pictures: np.ndarray) -> torch.Tensor:
    return nchw(pictures if pictures.ndim == 4 else pictures[..., None]).float().repeat(2, 1, 1, 1)


def test_fine_tuned_checkpoint(downstream, drawn):
    expected = drawn("fine_tuned", f"--base_model={downstream.folder / 'tuned'}", steps=2, guidance_scale=3.0)
    assert_same(ours(downstream, "tuned", 2, 3.0, scheduler="euler"), expected)


def test_lora(downstream, drawn):
    file = downstream.folder / "style.safetensors"
    flags = f"--base_model={downstream.folder / 'sdxl'}", f"--lora={file}", "--scale=0.7"
    expected = drawn("lora", *flags, steps=2, guidance_scale=3.0)
    draw = functools.partial(ours, downstream, "sdxl", 2, 3.0, scheduler="euler")
    assert_same(draw(loras=[(file, 0.7)]), expected)
    assert np.abs(draw() - 255 * expected).max() > 20, "the LoRA does nothing"


@pytest.mark.parametrize("script", ["lora", "lcm_lora"])
def test_lora_whose_names_count_the_blocks(example, tmp_path, script: str):
    """As kohya writes those of Stable Diffusion XL; the embedded model has one layer a block."""
    layers = load_file("assets/downstream/gzhel.safetensors")
    layers = {name: layer for name, layer in layers.items() if ".attentions." in name}
    save_file(layers, tmp_path / "diffusers.safetensors")
    save_file(counting_blocks(layers), tmp_path / "kohya.safetensors")
    unets = []
    for name in ("diffusers", "kohya"):
        flags = ["--base_model=assets/teacher", f"--lora={tmp_path / name}.safetensors", "--prompt=a", "--out=b"]
        unets.append(dict(example(script).load(example(script).PARSER.parse_args(flags)).unet.named_parameters()))
    torch.testing.assert_close(unets[1], unets[0])


def counting_blocks(layers: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result = {}
    for name, layer in layers.items():
        block, rest = re.sub(r"unet\.(\w+_block)s?\.(?:(\d)\.)?attentions\.(\d)\.", block_number, name).split(".lora_")
        block, down = f"lora_unet_{block.replace('.', '_')}", rest.startswith("A")
        result[f"{block}.lora_{'down' if down else 'up'}.weight"] = layer
        result[f"{block}.alpha"] = torch.tensor(float(layer.shape[0 if down else 1]))
    return result


def block_number(found: re.Match[str]) -> str:
    if found[1] == "mid_block":
        return "middle_block.1."
    down = found[1] == "down_block"
    return f"{'input' if down else 'output'}_blocks.{2 * int(found[2]) + int(found[3]) + down}.1."


def test_controlnet(downstream, drawn, example, tmp_path):
    path, controlnet = tmp_path / "shown.png", downstream.folder / "controlnet"
    Image.fromarray(np.kron(CONTROL[0] > 128, np.ones((8, 8, 1))).astype(np.uint8) * 255).save(path)
    flags = f"--base_model={downstream.folder / 'sdxl'}", f"--controlnet={controlnet}", f"--image={path}"
    shown = dict(image=tensor(CONTROL) / 255, controlnet_conditioning_scale=0.7)
    expected = drawn("controlnet", *flags, steps=2, guidance_scale=3.0, **shown)
    guides = Guides(control_image=CONTROL, controlnet_conditioning_scale=0.7)
    assert_same(ours(downstream, "sdxl", 2, 3.0, guides, controlnet=controlnet, scheduler="euler"), expected)
    edges = np.asarray(example("controlnet").edges(str(path), WIDTH * 8, HEIGHT * 8))
    assert set(np.unique(edges)) == {0, 255} and 0.01 < (edges == 255).mean() < 0.5
    lying, exif = tmp_path / "lying.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = 8  # to be turned to the left
    Image.open(path).transpose(Image.Transpose.ROTATE_270).save(lying, exif=exif)
    np.testing.assert_array_equal(example("controlnet").edges(str(lying), WIDTH * 8, HEIGHT * 8), edges)


def test_inpainting(downstream, drawn, tmp_path):
    flags = [f"--base_model={downstream.folder / 'inpainting'}"]
    for name, picture, mode in (("image", IMAGE[0], "RGBA"), ("mask", MASK[0], "RGB")):  # as drawing programs save them
        Image.fromarray(picture).convert(mode).save(tmp_path / f"{name}.png")
        flags.append(f"--{name}={tmp_path / name}.png")
    shown = dict(image=tensor(IMAGE) / 255, mask_image=tensor(MASK), strength=1.0)
    expected = drawn("inpainting", *flags, steps=2, guidance_scale=3.0, **shown)
    assert_same(
        ours(downstream, "inpainting", 2, 3.0, Guides(image=IMAGE, mask_image=MASK), scheduler="euler"), expected
    )


def test_ssd_1b(downstream, drawn):
    expected = drawn("ssd_1b", f"--base_model={downstream.folder / 'ssd-1b'}", steps=2, guidance_scale=3.0)
    assert_same(ours(downstream, "ssd-1b", 2, 3.0, scheduler="euler"), expected)


def test_lcm_lora(downstream, drawn):
    file = downstream.folder / "lcm.safetensors"
    flags = f"--base_model={downstream.folder / 'sdxl'}", f"--lora={file}"
    how: dict[str, Any] = dict(steps=4, guidance_scale=1.0)
    expected = drawn("lcm_lora", *flags, **how, noise_of="scheduling_lcm")
    assert_same(ours(downstream, "sdxl", **how, loras=[(file, 1.0)], scheduler="lcm"), expected)


@pytest.mark.parametrize("steps", [1, 4])
def test_turbo(downstream, drawn, steps: int):
    how: dict[str, Any] = dict(steps=steps, guidance_scale=0.0)
    noise_of = "scheduling_euler_ancestral_discrete"
    expected = drawn("turbo", f"--base_model={downstream.folder / 'turbo'}", **how, noise_of=noise_of)
    assert_same(ours(downstream, "turbo", **how, scheduler="from_config"), expected)
