"""Adapters in PyTorch against those in JAX: states, embeddings, and pictures of diffusers' own pipelines."""

import copy
import json
import pathlib
import pickle
import types
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from flax import nnx

from pea_jax import adapter as jax_adapter
from pea_jax import pytorch
from pea_jax.errors import PeaError
from pea_jax.sampling.pipeline import Sampling, TextToImage, noise_for
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.text.joined import load_text_encoders
from tests import language_clips as clips
from tests import tiny_sd15, tiny_sdxl
from tests.text.test_architectures import CASES
from tests.tiny_text_models import assert_close, random_bert, randomise
from tests.torch_oracle import nchw, randomised

E5 = "assets/multilingual-e5-small"
PROMPTS = ["красное яблоко", "кот"]
WIDTHS = dict(input_dim=384, hidden_dim=8, pooled_dim=20, output_dim=40)  # of tests/tiny_sdxl.py


def save(folder: pathlib.Path, encoder_id: str, dims: dict[str, Any], **rule: Any) -> AdapterConditioner:
    """Writes an adapter directory of random weights; returns what it is in JAX."""
    encoder = load_text_encoders(encoder_id, **rule)
    adapter = jax_adapter.PEAdapter(
        jax_adapter.AdapterDims(**dims | dict(input_dim=encoder.hidden_size)), rngs=nnx.Rngs(0)
    )
    adapter.save_pretrained(folder, {"text_encoder": json.loads(json.dumps(encoder.describe()))}, "")
    return AdapterConditioner.from_pretrained(folder)


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterConditioner, pytorch.PEAdapter]:
    """Behind the embedded encoder, whose weights are kept in 4 bits."""
    folder = tmp_path_factory.mktemp("emoji") / "adapter"
    return save(folder, E5, WIDTHS, context_length=12), pytorch.PEAdapter.from_pretrained(folder)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("sdxl")
    tiny_sdxl.save(folder)
    randomised(tiny_sdxl.random_unet(40, 20)).save_pretrained(folder / "unet")
    return folder


def without_text_encoders(kind: Any, folder: pathlib.Path, **parts: Any) -> Any:
    """A pipeline that must be told embeddings."""
    pipe = kind(
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler"),
        **dict.fromkeys(("text_encoder", "tokenizer", *parts.pop("none"))),
        **parts,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_15(folder: pathlib.Path) -> StableDiffusionPipeline:
    tiny_sd15.save(folder)
    none = ("safety_checker", "feature_extractor")
    return without_text_encoders(StableDiffusionPipeline, folder, none=none, requires_safety_checker=False)


@pytest.fixture(scope="module")
def pipe(sdxl: pathlib.Path) -> StableDiffusionXLPipeline:
    none = ("text_encoder_2", "tokenizer_2")
    return without_text_encoders(StableDiffusionXLPipeline, sdxl, none=none, add_watermarker=False)


def test_embeddings_are_those_of_jax(emoji, pipe):
    ours, theirs = emoji
    found = theirs.encode(pipe, PROMPTS, "дождь", num_images_per_prompt=2)
    assert list(found) == [
        "prompt_embeds", "pooled_prompt_embeds", "negative_prompt_embeds", "negative_pooled_prompt_embeds",
    ]  # fmt: skip
    expected, negative = ours.encode_guided(PROMPTS, "дождь")
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        assert_close(np.repeat(getattr(expected, name), 2, axis=0), found[name])
        assert_close(np.repeat(getattr(negative, name), 4, axis=0), found[f"negative_{name}"])


def test_without_guidance_nothing_is_negative(emoji, pipe):
    assert list(emoji[1].encode(pipe, "кот", guidance=False)) == ["prompt_embeds", "pooled_prompt_embeds"]


def test_one_negative_prompt_for_each(emoji, pipe):
    found = emoji[1].encode(pipe, PROMPTS, ["дождь", ""])
    empty = emoji[1].encode(pipe, PROMPTS)
    torch.testing.assert_close(found["negative_prompt_embeds"][1], empty["negative_prompt_embeds"][1])
    assert (found["negative_prompt_embeds"][0] - empty["negative_prompt_embeds"][0]).abs().max() > 0.01
    with pytest.raises(PeaError, match="3 negative prompts for 2 prompts"):
        emoji[1].encode(pipe, PROMPTS, ["a", "b", "c"])


@pytest.mark.parametrize("prompt", [None, [], [None]])
def test_no_prompt_is_refused(emoji, pipe, prompt):
    with pytest.raises(PeaError, match=r"prompt=.*: must be a text, or a list of texts"):
        emoji[1].encode(pipe, prompt)


@pytest.mark.parametrize("negative", [[], [None], 3])
def test_a_negative_prompt_that_is_no_text_is_refused(emoji, pipe, negative):
    with pytest.raises(PeaError, match=r"negative_prompt=.*: must be a text, or a list of texts"):
        emoji[1].encode(pipe, "кот", negative)


@pytest.mark.parametrize("count", [0, -1, 1.5, None])
def test_a_number_of_pictures_that_is_none_is_refused(emoji, pipe, count):
    """Of none there would be embeddings without rows, of which pipelines make no sense."""
    with pytest.raises(PeaError, match=rf"num_images_per_prompt={count}: must be a whole number from 1 on"):
        emoji[1].encode(pipe, "кот", num_images_per_prompt=count)


def test_prompts_of_an_array(emoji, pipe):
    """As a column of a table gives them."""
    found, expected = (emoji[1].encode(pipe, texts, texts) for texts in (np.array(PROMPTS), PROMPTS))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("texts", ["кот", [], [None]])
def test_without_a_pipeline_a_list_is_needed(emoji, texts):
    """The letters of a string are texts as well: each would get embeddings of its own."""
    with pytest.raises(PeaError, match=r"texts=.*: must be a list of texts"):
        emoji[1].embed(texts, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("pair", [("кот \ud83c", None), ("кот", "\udf4e")])
def test_half_of_a_surrogate_pair_is_refused(emoji, pipe, pair):
    """JSON may hold it, and the tokenizers' Rust cannot."""
    with pytest.raises(PeaError, match=r"^'.*\\ud.*': holds half of a surrogate pair, which is no letter; remove it"):
        emoji[1].encode(pipe, *pair)


def test_in_the_pipelines_dtype(emoji, pipe):
    half_unet = copy.deepcopy(pipe.unet).to(torch.bfloat16)
    half_pipe = types.SimpleNamespace(unet=half_unet, device=pipe.device, dtype=torch.float32)
    full, half = (emoji[1].encode(each, PROMPTS)["prompt_embeds"] for each in (pipe, half_pipe))
    assert half.dtype == torch.bfloat16
    assert 0 < (half - full).abs().max() / full.std() < 0.1


def test_a_lower_precision_leaves_nothing_behind(emoji):
    adapter, cpu = emoji[1], torch.device("cpu")
    (part,) = adapter.text_encoder[0].parts
    before = adapter.embed(PROMPTS, cpu, torch.float32)["prompt_embeds"]
    for dtype in (torch.float16, torch.bfloat16):
        adapter.embed(PROMPTS, cpu, dtype)
        kept = part._cast
        adapter.embed(PROMPTS, cpu, dtype)
        assert part._cast is kept and kept.dtype == dtype
    after = adapter.embed(PROMPTS, cpu, torch.float32)["prompt_embeds"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert part._cast is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_adapter_that_was_taken_to_another_dtype_computes_in_float32(emoji, dtype):
    cpu = torch.device("cpu")
    expected = emoji[1].embed(PROMPTS, cpu, torch.float32)
    found = copy.deepcopy(emoji[1]).to(dtype).embed(PROMPTS, cpu, torch.float32)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert (found[name] - value).abs().max() / value.std() < 0.1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda adapter: pickle.loads(pickle.dumps(adapter))])
def test_a_copy_gives_the_same(emoji, pipe, copied):
    expected = emoji[1].encode(pipe, PROMPTS)
    torch.testing.assert_close(copied(emoji[1]).encode(pipe, PROMPTS), expected, rtol=0, atol=0)


def test_a_device_without_memory_is_refused(emoji, pipe):
    """Weights that were taken there would be lost: a pipeline names it whose UNet alone was offloaded."""
    expected = emoji[1].encode(pipe, PROMPTS)["prompt_embeds"]
    with pytest.raises(PeaError, match="device meta holds no numbers"):
        emoji[1].embed(PROMPTS, torch.device("meta"), torch.float32)
    torch.testing.assert_close(emoji[1].encode(pipe, PROMPTS)["prompt_embeds"], expected)


def test_pictures_are_those_of_jax(emoji, pipe, sdxl):
    """The whole way: prompts in Russian to pictures, from the same noise."""
    ours, theirs = emoji
    in_jax, size = TextToImage.from_pretrained(sdxl), dict(height=16, width=24)
    wanted = in_jax.generate(*ours.encode_guided(PROMPTS), Sampling(steps=3, guidance_scale=5.0, seed=4), **size)
    noise = np.asarray(noise_for(4, range(2), (*in_jax.latent_size(**size), 4)))
    settings = dict(latents=nchw(noise), num_inference_steps=3, guidance_scale=5.0, output_type="np", **size)
    found = pipe(**theirs.encode(pipe, PROMPTS), **settings).images
    assert np.abs(found * 255 - wanted).max() <= 0.51  # JAX rounds to whole numbers
    assert found.std() > 0.05


def test_stable_diffusion_15(tmp_path):
    pipe = stable_diffusion_15(tmp_path / "base")
    ours = save(tmp_path / "adapter", E5, dict(hidden_dim=8, pooled_dim=None, output_dim=16), context_length=12)
    adapter = pytorch.PEAdapter.from_pretrained(tmp_path / "adapter")
    found = adapter.encode(pipe, PROMPTS)
    assert list(found) == ["prompt_embeds", "negative_prompt_embeds"]
    assert_close(ours.encode(PROMPTS).prompt_embeds, found["prompt_embeds"])
    assert len(pipe(**found, num_inference_steps=1, height=16, width=16).images) == 2


@pytest.mark.parametrize("name", CASES)
def test_encoders_of_transformers(tmp_path, name, pipe):
    config, write_tokenizer, _, length = CASES[name]
    kind = getattr(transformers, name)
    (tmp_path / "encoder").mkdir()
    write_tokenizer(tmp_path / "encoder")
    randomise(kind(kind.config_class(**config))).save_pretrained(tmp_path / "encoder")
    ours = save(tmp_path / "adapter", str(tmp_path / "encoder"), WIDTHS)
    adapter = pytorch.PEAdapter.from_pretrained(tmp_path / "adapter")
    assert adapter.text_encoder[0].context_length == length
    assert_close(ours.encode(PROMPTS).prompt_embeds, adapter.encode(pipe, PROMPTS)["prompt_embeds"])


def test_two_encoders_side_by_side_before_their_last_layer(tmp_path, pipe):
    for name in "ab":
        size = clips.save_cased_tokenizer(tmp_path / name)
        random_bert(**clips.SMALL, vocab_size=size).save_pretrained(tmp_path / name)
    names = f"{tmp_path / 'a'} + {tmp_path / 'b'}"
    ours = save(tmp_path / "adapter", names, WIDTHS, context_length=12, prefix="a ", hidden_state=-2)
    adapter = pytorch.PEAdapter.from_pretrained(tmp_path / "adapter")
    assert_close(ours.encode(PROMPTS).prompt_embeds, adapter.encode(pipe, PROMPTS)["prompt_embeds"])


@pytest.mark.parametrize("image_prompts", [False, True])
def test_a_unet_that_projects_its_text_states_first(emoji, sdxl, image_prompts):
    """Kolors: its states are as wide as those of ChatGLM; an IP-Adapter takes the place of the projection's name."""
    config = UNet2DConditionModel.load_config(sdxl / "unet")
    unet = UNet2DConditionModel.from_config(config, encoder_hid_dim=96, encoder_hid_dim_type="text_proj")
    if image_prompts:
        unet.text_encoder_hid_proj, unet.config.encoder_hid_dim_type = unet.encoder_hid_proj, "ip_image_proj"
    with pytest.raises(PeaError, match="takes embeddings 96 wide with a pooled one, this adapter gives 40 wide"):
        emoji[1].check(types.SimpleNamespace(unet=unet))
    unet = UNet2DConditionModel.from_config(config, encoder_hid_dim=40, encoder_hid_dim_type="text_proj")
    emoji[1].check(types.SimpleNamespace(unet=unet))


def test_a_unet_with_image_prompts(emoji, sdxl):
    unet = UNet2DConditionModel.from_pretrained(sdxl / "unet")
    unet.config.encoder_hid_dim_type = "ip_image_proj"  # as `load_ip_adapter` leaves it
    emoji[1].check(types.SimpleNamespace(unet=unet))


def test_what_is_wrong_is_said_in_one_line(tmp_path, emoji, pipe):
    other = stable_diffusion_15(tmp_path / "base")
    with pytest.raises(PeaError, match="takes embeddings 16 wide without a pooled one, this adapter gives 40 wide"):
        emoji[1].encode(other, "кот")
    with pytest.raises(PeaError, match="SimpleNamespace: has no UNet; this adapter goes with Stable Diffusion XL"):
        emoji[1].encode(types.SimpleNamespace(transformer=pipe.unet, device=pipe.device), "кот")
    save(tmp_path / "adapter", E5, WIDTHS, context_length=12)
    config = json.loads((tmp_path / "adapter/config.json").read_text())
    config["text_encoder"]["architecture"] = "GPT2Model"
    (tmp_path / "adapter/config.json").write_text(json.dumps(config))
    with pytest.raises(PeaError, match=f"{E5}: architecture GPT2Model is not known"):
        pytorch.PEAdapter.from_pretrained(tmp_path / "adapter")
    with pytest.raises(PeaError, match="nothing.config.json: no such file; an adapter is a directory"):
        pytorch.PEAdapter.from_pretrained(tmp_path / "nothing")
