"""Text encoders side by side: states, descriptions, and an adapter directory that names two."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from pea_jax import mesh as meshes
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.errors import PeaError
from pea_jax.pytorch import text_encoder
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.text.encoders import TextEncoder, load_text_encoder
from pea_jax.text.joined import JoinedTextEncoder, load_text_encoders, with_padding
from pea_jax.weights import open_clip
from tests import language_clips as clips
from tests import tiny_tokenizers
from tests.tiny_text_models import assert_close, random_bert
from tests.weights import test_open_clip

TEXTS = ["红苹果", "", "a red apple in a much longer text than sixteen tokens can ever hold, I am sure"]
LENGTH = 16


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """XLM-R's place is taken by a BERT; Chinese-CLIP has another vocabulary and width."""
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    size = clips.save_cased_tokenizer(first)
    random_bert(**clips.SMALL, vocab_size=size).save_pretrained(first)
    clips.save_cased_tokenizer(second, clips.KLUE_SPECIALS)
    wide = dict(clips.SMALL, hidden_size=32, vocab_size=size, max_position_embeddings=LENGTH)
    random_bert(**wide).save_pretrained(second)
    return str(first), str(second)


@pytest.fixture(scope="module")
def joined(names: tuple[str, str]) -> JoinedTextEncoder:
    encoder = load_text_encoders(" + ".join(names), context_length=LENGTH)
    assert isinstance(encoder, JoinedTextEncoder)
    return encoder


def test_states_are_side_by_side(names: tuple[str, str], joined: JoinedTextEncoder):
    states, mask = joined.encode(TEXTS)
    apart = [load_text_encoder(name, context_length=LENGTH).encode(TEXTS) for name in names]
    assert states.shape == (3, LENGTH, 24 + 32) and joined.hidden_size == 56
    np.testing.assert_allclose(states, np.concatenate([own for own, _ in apart], axis=-1), atol=1e-5)
    np.testing.assert_array_equal(mask, np.maximum(apart[0][1], apart[1][1]))


def test_xlm_r_and_chinese_clip_as_in_pytorch(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """The two that PEA-Diffusion joins, in the files in which they are published."""
    first, second = tmp_path / "xlm_r", tmp_path / "chinese_clip"
    first.mkdir()
    tiny_tokenizers.xlm_r_sentencepiece(first)
    size = len(transformers.AutoTokenizer.from_pretrained(first))
    tiny = dict(test_open_clip.TINY, vocab_size=size, max_position_embeddings=LENGTH + 2)
    monkeypatch.setattr(test_open_clip, "TINY", tiny)
    monkeypatch.setitem(open_clip.NETWORKS, "xlm-roberta-large", open_clip.LARGE | tiny)
    towers = [test_open_clip.write(first, "open_clip_pytorch_model.bin")]
    lines = clips.word_pieces(True)
    text = dict(clips.SMALL, vocab_size=len(lines), max_position_embeddings=LENGTH)
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=clips.VISION.to_dict(), projection_dim=20)
    towers.append(clips.save_whole(second, transformers.ChineseCLIPModel(config)))
    clips.save_vocabulary(second, lines)

    expected = []
    for folder, tower in zip((first, second), towers, strict=True):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
        with torch.no_grad():
            mask = tokens["attention_mask"]
            expected.append(tower(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state)
    states, _ = load_text_encoders(f"{first} + {second}", context_length=LENGTH).encode(TEXTS)
    assert_close(states, torch.cat(expected, dim=-1))


def test_each_has_its_own_tokens(names: tuple[str, str], joined: JoinedTextEncoder):
    tokens = joined.tokenize(TEXTS)
    assert list(tokens) == ["input_ids", "attention_mask", "input_ids_2", "attention_mask_2"]
    for name, suffix in zip(names, ("", "_2"), strict=True):
        own = load_text_encoder(name, context_length=LENGTH).tokenize(TEXTS)
        np.testing.assert_array_equal(tokens["input_ids" + suffix], own["input_ids"])
    assert np.any(tokens["input_ids"] != tokens["input_ids_2"])


def test_apply_is_pure(joined: JoinedTextEncoder):
    assert isinstance(joined.params, tuple)
    tokens = joined.tokenize(TEXTS)
    states = jax.jit(joined.apply)(joined.params, **tokens)
    np.testing.assert_allclose(states, joined.encode(TEXTS)[0], atol=1e-5)
    zeroed = (jax.tree.map(np.zeros_like, joined.params[0]), joined.params[1])
    changed = np.asarray(jax.jit(joined.apply)(zeroed, **tokens))
    assert not np.any(changed[..., :24])
    np.testing.assert_array_equal(changed[..., 24:], states[..., 24:])


def test_one_name_is_one_encoder(names: tuple[str, str]):
    assert isinstance(load_text_encoders(names[0], context_length=LENGTH), TextEncoder)


def test_on_a_mesh(names: tuple[str, str], joined: JoinedTextEncoder):
    placed = load_text_encoders(" + ".join(names), context_length=LENGTH, mesh=meshes.make_mesh())
    np.testing.assert_allclose(placed.encode(TEXTS)[0], joined.encode(TEXTS)[0], atol=1e-5)


@pytest.mark.parametrize("hidden_state", [None, -2])
def test_an_adapter_directory_names_both(names: tuple[str, str], tmp_path: pathlib.Path, hidden_state: int | None):
    encoder = load_text_encoders(" + ".join(names), context_length=12, prefix="a ", hidden_state=hidden_state)
    description = json.loads(json.dumps(encoder.describe()))
    assert description["id"] == " + ".join(names) and [own["id"] for own in description["encoders"]] == list(names)
    assert (description["context_length"], description["pad_token"]) == (12, "[PAD] + [PAD]")
    adapter = PEAdapter(AdapterDims(56, 8, 20, 40), rngs=nnx.Rngs(0))
    adapter.save_pretrained(tmp_path / "adapter", {"text_encoder": description}, "")
    loaded = AdapterConditioner.from_pretrained(tmp_path / "adapter")
    assert loaded.text_encoder.describe() == encoder.describe()
    expected = AdapterConditioner(encoder, adapter).encode(TEXTS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), loaded.encode(TEXTS), expected)


def test_a_tokenizer_that_pads_otherwise_is_refused(names: tuple[str, str], tmp_path: pathlib.Path):
    encoder = load_text_encoders(" + ".join(names), context_length=12)
    description = json.loads(json.dumps(encoder.describe()))
    adapter = PEAdapter(AdapterDims(56, 8, 20, 40), rngs=nnx.Rngs(0))
    load_in_pytorch = text_encoder.load_text_encoders
    for number, rule in enumerate(description["encoders"]):
        was = rule["padding_side"]
        rule["padding_side"] = "left"
        adapter.save_pretrained(tmp_path / f"adapter-{number}", {"text_encoder": description}, "")
        said = f"^{names[number]}: its tokenizer has padding_side='right', the adapter was trained with 'left'"
        with pytest.raises(PeaError, match=said):
            AdapterConditioner.from_pretrained(tmp_path / f"adapter-{number}")
        with pytest.raises(PeaError, match=said):
            load_in_pytorch(description)
        rule["padding_side"] = was
    for described in (description["encoders"][:1], []):
        with pytest.raises(PeaError, match=f"describes {len(described)} encoders, names 2"):
            load_in_pytorch(description | {"encoders": described})
    for described in (None, "two", ["one", "two"]):
        with pytest.raises(PeaError, match="encoders must be a list of what it says of each"):
            load_in_pytorch(description | {"encoders": described})
    assert load_in_pytorch({"id": description["id"], "context_length": 12, "pad_token": "x"}).hidden_size == 56


@pytest.mark.parametrize("count", [1, 2])
def test_how_they_pad_is_known_without_weights(names: tuple[str, str], tmp_path: pathlib.Path, count: int):
    """What a config says, with the padding of `describe`; both ways of loading take it."""
    for number, name in enumerate(names):
        shutil.copytree(name, tmp_path / str(number), ignore=shutil.ignore_patterns("*.safetensors"))
    here, there = ([str(tmp_path / str(number)) for number in range(count)], names[:count])
    rule = dict(context_length=12, prefix="a ", hidden_state=-2)
    described = load_text_encoders(" + ".join(there), **rule).describe()
    found = with_padding(rule | {"id": " + ".join(here)})
    for own, known in zip(found.get("encoders", [found]), described.get("encoders", [described]), strict=True):
        assert own | {"id": known["id"]} == {name: known[name] for name in own}
    found = with_padding(rule | {"id": " + ".join(there)})
    assert load_text_encoders(found["id"], **rule, rule=found).describe() == described
    assert text_encoder.load_text_encoders(found).parts[-1].prefix == "a "


def test_lengths_must_agree(names: tuple[str, str]):
    with pytest.raises(PeaError, match="side by side need one context_length .*: 512, .*: 16.; set it"):
        load_text_encoders(" + ".join(names))
