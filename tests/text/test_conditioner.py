"""Conditioners: Stable Diffusion XL's against diffusers `encode_prompt`, the adapter's against its two halves."""

import json
import pathlib
import shutil

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx

from pea_jax import mesh as meshes
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.errors import PeaError
from pea_jax.text.conditioner import AdapterConditioner, Conditioning, StableDiffusionXLConditioner
from pea_jax.weights import load_text_encoder
from tests.tiny_text_models import CONTEXT, assert_close, clip_tokenizer, save_sdxl_text_models

PROMPTS = ["red apple", "Cat!", "", "a much longer text than sixteen tokens allow", "<|endoftext|> ca", *"abcdef"]
PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("sdxl")
    save_sdxl_text_models(path)
    return path


@pytest.fixture(scope="module")
def conditioner(folder: pathlib.Path) -> StableDiffusionXLConditioner:
    return StableDiffusionXLConditioner.from_pretrained(folder)


@pytest.fixture(scope="module")
def adapted(folder: pathlib.Path) -> AdapterConditioner:
    shutil.copy(folder / "tokenizer" / "tokenizer.json", folder / "text_encoder")
    shutil.copy(folder / "tokenizer" / "tokenizer_config.json", folder / "text_encoder")
    adapter = PEAdapter(AdapterDims(16, 12, 20, 40), rngs=nnx.Rngs(0))
    return AdapterConditioner(load_text_encoder(folder / "text_encoder", context_length=10), adapter)


def assert_equal(actual: Conditioning, expected: Conditioning) -> None:
    """Up to rounding, which depends on the batch size."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), actual, expected)


def test_encode_prompt(folder: pathlib.Path, conditioner: StableDiffusionXLConditioner):
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=None,
        unet=None,
        scheduler=None,
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=transformers.AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder=transformers.CLIPTextModel.from_pretrained(folder / "text_encoder"),
        text_encoder_2=transformers.CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2"),
        add_watermarker=False,
    )
    embeds, no_embeds, pooled, no_pooled = pipeline.encode_prompt(PROMPTS, device="cpu", negative_prompt=[""] * 11)
    conditioning, unconditional = conditioner.encode(PROMPTS), conditioner.unconditional(11)
    assert_close(conditioning.prompt_embeds, embeds)
    assert_close(conditioning.pooled_prompt_embeds, pooled)
    assert_close(unconditional.prompt_embeds, no_embeds)
    assert_close(unconditional.pooled_prompt_embeds, no_pooled)
    assert conditioning.prompt_embeds.shape == (11, CONTEXT, 40) and pooled.shape == (11, 20)
    assert conditioning.attention_mask is None


def test_tokens_of_both_encoders(conditioner: StableDiffusionXLConditioner):
    tokens = conditioner.tokenize(["red"])
    pads = [row[0, -1] for row in tokens.values()]
    assert list(tokens) == ["input_ids", "input_ids_2"]
    assert pads == [clip_tokenizer().eos_token_id, clip_tokenizer().convert_tokens_to_ids("!")]


@pytest.mark.parametrize("name", ["conditioner", "adapted"])
def test_apply_inside_a_step(name: str, request: pytest.FixtureRequest):
    """Parameters and tokens are arguments, the conditioning is a result, and no weights are baked in."""
    conditioner = request.getfixturevalue(name)
    tokens = conditioner.tokenize(PROMPTS)
    conditioning = jax.jit(conditioner.apply)(conditioner.params, tokens)
    assert isinstance(conditioning, Conditioning)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), conditioning, conditioner.encode(PROMPTS))
    constants = jax.make_jaxpr(conditioner.apply)(conditioner.params, tokens).consts
    assert sum(np.size(constant) for constant in constants) < 1000


def test_adapter_follows_the_encoder(adapted: AdapterConditioner):
    states, _ = adapted.text_encoder.encode(PROMPTS)
    adapter = nnx.merge(adapted._graphdef, adapted.params[1])
    prompt_embeds, pooled = adapter(states)
    conditioning = adapted.encode(PROMPTS)
    assert_equal(conditioning, Conditioning(prompt_embeds, pooled))
    assert prompt_embeds.shape == (11, 10, 40)


@pytest.mark.parametrize("name", ["conditioner", "adapted"])
def test_unconditional_is_the_empty_text(name: str, request: pytest.FixtureRequest):
    conditioner = request.getfixturevalue(name)
    expected = conditioner.encode(["", ""])
    assert_equal(conditioner.unconditional(2), expected)
    assert not np.allclose(conditioner.encode(["red"]).prompt_embeds, expected.prompt_embeds[:1])


def test_trained_parameters_take_effect(adapted: AdapterConditioner):
    before = adapted.encode(["red"])
    encoder_params, adapter_params = adapted.params
    adapted.params = (encoder_params, jax.tree.map(lambda x: 2 * x, adapter_params))
    after = adapted.encode(["red"])
    adapted.params = (encoder_params, adapter_params)
    assert np.abs(after.prompt_embeds - before.prompt_embeds).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, adapted.encode(["red"]), before)


def test_gradient_reaches_every_parameter_of_the_adapter(adapted: AdapterConditioner):
    tokens, (encoder_params, adapter_params) = adapted.tokenize(["red", "cat"]), adapted.params

    def loss(adapter_params):
        conditioning = adapted.apply((encoder_params, adapter_params), tokens)
        return jnp.square(conditioning.prompt_embeds).sum() + conditioning.pooled_prompt_embeds.sum()

    for path, gradient in nnx.to_flat_state(jax.jit(jax.grad(loss))(adapter_params)):
        assert np.abs(gradient[...]).max() > 1e-4, path


@pytest.mark.parametrize("name", ["conditioner", "adapted"])
def test_on_a_mesh(name: str, folder: pathlib.Path, request: pytest.FixtureRequest):
    mesh = meshes.make_mesh()
    if name == "conditioner":
        placed = StableDiffusionXLConditioner.from_pretrained(folder, mesh=mesh)
    else:
        adapter = PEAdapter(AdapterDims(16, 12, 20, 40), rngs=nnx.Rngs(0))
        request.getfixturevalue(name)
        placed = AdapterConditioner(load_text_encoder(folder / "text_encoder", context_length=10, mesh=mesh), adapter)
    assert {leaf.sharding.mesh for leaf in jax.tree.leaves(placed.params)} == {mesh}
    expected = request.getfixturevalue(name).encode(PROMPTS)
    assert_equal(placed.encode(PROMPTS), expected)


def test_half_precision(folder: pathlib.Path, conditioner: StableDiffusionXLConditioner):
    half = StableDiffusionXLConditioner.from_pretrained(folder, jnp.bfloat16).encode(PROMPTS)
    exact = conditioner.encode(PROMPTS)
    assert half.prompt_embeds.dtype == half.pooled_prompt_embeds.dtype == jnp.bfloat16
    difference = np.abs(np.asarray(half.prompt_embeds, np.float32) - exact.prompt_embeds)
    assert difference.mean() < 0.02 * np.std(exact.prompt_embeds)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(folder: pathlib.Path, tmp_path: pathlib.Path, part: str):
    for name in set(PARTS) - {part}:
        shutil.copytree(folder / name, tmp_path / name)
    with pytest.raises(PeaError, match=f"{tmp_path / part}[:/]"):
        StableDiffusionXLConditioner.from_pretrained(tmp_path)


def test_swapped_encoders_are_refused(folder: pathlib.Path, tmp_path: pathlib.Path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "text_encoder_2")
    shutil.copytree(folder / "text_encoder", tmp_path / "text_encoder_2")
    with pytest.raises(PeaError, match="text_encoder_2: must be a CLIPTextModelWithProjection"):
        StableDiffusionXLConditioner.from_pretrained(tmp_path)


@pytest.mark.parametrize("length", [8, 77])
def test_unequal_lengths_are_refused(folder: pathlib.Path, tmp_path: pathlib.Path, length: int):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer_2" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": length}))
    with pytest.raises(PeaError, match="model_max_length .* must be one number"):
        StableDiffusionXLConditioner.from_pretrained(tmp_path)
