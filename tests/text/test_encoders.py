"""Text encoders: the shipped one against its published values, the rest against transformers."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pea_jax.errors import PeaError
from pea_jax.text.encoders import TextEncoder
from pea_jax.weights import load_text_encoder
from tests.tiny_text_models import CONTEXT, VOCABULARY, assert_close, clip_tokenizer, random_bert, random_clip

E5 = pathlib.Path(__file__).resolve().parents[2] / "assets" / "multilingual-e5-small"
GOLDEN = {
    "red apple": ([0, 39, 909, 12, 2562, 19429, 2], [0.02047, -0.04830, -0.03263, -0.04447, 0.08000, -0.06765]),
    "красное яблоко": (
        [0, 39, 909, 12, 9360, 2807, 597, 16206, 179, 2],
        [0.01626, -0.01258, -0.02033, -0.08215, 0.09679, -0.02886],
    ),
    "红苹果": ([0, 39, 909, 12, 6, 4803, 14700, 2], [0.06707, -0.03560, -0.03814, -0.05774, 0.09829, -0.02498]),
}
TINY = dict(
    vocab_size=VOCABULARY, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=CONTEXT,
)  # fmt: skip
TEXTS = ["red apple", "Cat!", "a much longer text than sixteen tokens allow"]


@pytest.fixture(scope="module")
def e5() -> TextEncoder:
    return load_text_encoder(E5, context_length=12, prefix="query: ")


@pytest.fixture
def clip_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    random_clip(with_projection=True, **TINY, eos_token_id=2).save_pretrained(tmp_path)
    clip_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_shipped_encoder_gives_the_published_values(e5: TextEncoder):
    tokens = e5.tokenize(list(GOLDEN))
    for row, (ids, _) in zip(tokens["input_ids"], GOLDEN.values(), strict=True):
        assert row.tolist() == ids + [1] * (12 - len(ids))
    states, mask = map(np.asarray, e5.encode(list(GOLDEN)))
    np.testing.assert_array_equal(mask, tokens["attention_mask"])
    vectors = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors[:, :6], [first for _, first in GOLDEN.values()], rtol=0, atol=1e-4)
    assert vectors[0] @ vectors[1] == pytest.approx(0.8278, abs=5e-5)


def test_padding_does_not_change_a_text(e5: TextEncoder):
    longer = load_text_encoder(E5, context_length=20, prefix="query: ")
    states, mask = map(np.asarray, e5.encode(list(GOLDEN)))
    same, _ = longer.encode(list(GOLDEN))
    np.testing.assert_allclose(np.asarray(same)[:, :12][mask == 1], states[mask == 1], atol=1e-4)


@pytest.mark.parametrize("hidden_state", [-1, -2, 0, 2])
def test_hidden_states_are_those_of_transformers(clip_folder: pathlib.Path, hidden_state: int):
    """-1 is after the final norm, all others are before it."""
    encoder = load_text_encoder(clip_folder, hidden_state=hidden_state)
    states, mask = encoder.encode(TEXTS)
    tokens = clip_tokenizer()(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    np.testing.assert_array_equal(mask, tokens.attention_mask)
    reference = random_clip(with_projection=True, **TINY, eos_token_id=2)
    expected = reference(**tokens, output_hidden_states=True)
    assert_close(states, expected.last_hidden_state if hidden_state == -1 else expected.hidden_states[hidden_state])


def test_apply_is_pure(clip_folder: pathlib.Path):
    """It reads the parameters it is given, and they are no constants of the compiled program."""
    encoder = load_text_encoder(clip_folder)
    tokens = encoder.tokenize(TEXTS)
    states = jax.jit(encoder.apply)(encoder.params, **tokens)
    np.testing.assert_allclose(states, encoder.encode(TEXTS)[0], atol=1e-5)
    zeros = jax.tree.map(jnp.zeros_like, encoder.params)
    assert not np.any(jax.jit(encoder.apply)(zeros, **tokens))
    largest = max(leaf.size for leaf in jax.tree.leaves(encoder.params))
    constants = jax.make_jaxpr(encoder.apply)(encoder.params, **tokens).consts
    assert sum(np.size(constant) for constant in constants) < largest


def test_description_rebuilds_the_encoder(clip_folder: pathlib.Path):
    encoder = load_text_encoder(clip_folder, context_length=8, prefix="red ", hidden_state=-2)
    description = json.loads(json.dumps(encoder.describe()))
    assert description == {
        "id": str(clip_folder),
        "architecture": "CLIPTextModelWithProjection",
        "context_length": 8,
        "prefix": "red ",
        "pad_token": "<|endoftext|>",
        "pad_token_id": VOCABULARY - 1,
        "padding_side": "right",
        "truncation_side": "right",
        "masked": True,
        "hidden_state": -2,
    }
    arguments = {name: description[name] for name in ("context_length", "prefix", "hidden_state")}
    again = load_text_encoder(description["id"], **arguments)
    np.testing.assert_array_equal(again.encode(TEXTS)[0], encoder.encode(TEXTS)[0])


def test_context_length_is_by_default_the_shorter_limit(clip_folder: pathlib.Path):
    assert load_text_encoder(E5).context_length == 128
    clip_tokenizer(context_length=10).save_pretrained(clip_folder)
    assert load_text_encoder(clip_folder).context_length == 10


def test_bfloat16(clip_folder: pathlib.Path):
    states, _ = load_text_encoder(clip_folder, dtype=jnp.bfloat16).encode(TEXTS)
    assert states.dtype == jnp.bfloat16
    exact, _ = load_text_encoder(clip_folder).encode(TEXTS)
    assert_close(states, torch.from_numpy(np.array(exact)), tolerance=0.15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context_length": 129}, "context_length=129 is more than the network's 128 positions"),
        ({"context_length": 0}, "context_length=0 leaves no room"),
        ({"hidden_state": 13}, r"hidden_state=13 is not within -13\.\.12"),
        ({"hidden_state": -14}, "hidden_state=-14 is not within"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(PeaError, match=message):
        load_text_encoder(E5, **arguments).tokenize(["red apple"])


def test_a_single_string_is_refused(e5: TextEncoder):
    with pytest.raises(PeaError, match="list of strings"):
        e5.encode("red apple")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"architectures": ["GPT2Model"]},
            "architecture GPT2Model is not known .known: AltCLIPModel, .*CLIPTextModel",
        ),
        ({"architectures": None}, "architecture none is not known"),
        ({"vocab_size": 400}, "522 tokens in the tokenizer, 400 in the network"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: pathlib.Path, config: dict, message: str):
    random_bert(**TINY | {"vocab_size": config.get("vocab_size", VOCABULARY)}).save_pretrained(tmp_path)
    clip_tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(PeaError, match=message) as caught:
        load_text_encoder(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model_q4.safetensors"])
def test_missing_files_are_named(tmp_path: pathlib.Path, name: str):
    for path in E5.iterdir():
        if path.name != name:
            shutil.copy(path, tmp_path)
    with pytest.raises(PeaError, match=f"(no|neither) .*{name.replace('_q4', '')}|{name}: no such file"):
        load_text_encoder(tmp_path)
