"""Transformers folders: what transformers wrote is read back, and what is wrong with a folder is said."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file, save_file

from pea_jax.errors import PeaError
from pea_jax.weights import load_bert, load_clip_text
from pea_jax.weights.quantised import dequantise
from tests.tiny_text_models import assert_close, random_bert, random_clip, randomise
from tests.torch_oracle import compiled

BERT = dict(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
    max_position_embeddings=12,
)  # fmt: skip
CLIP = dict(BERT, projection_dim=20, eos_token_id=2)
IDS = np.random.default_rng(0).integers(0, 50, (3, 9))
E5 = pathlib.Path(__file__).resolve().parents[2] / "assets" / "multilingual-e5-small"


def rewrite(folder: pathlib.Path, change: Callable[[dict], dict]) -> None:
    """Replaces the tensors of `folder` by what `change` makes of them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def renamed(change: Callable[[str], str]) -> Callable[[dict], dict]:
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def as_saved(tensors: dict) -> dict:
    return tensors


def in_the_old_way(tensors: dict) -> dict:
    """With prefix and with a buffer, as in the published folder of Stable Diffusion XL."""
    named = {name if name.startswith("text_") else f"text_model.{name}": tensor for name, tensor in tensors.items()}
    return named | {"text_model.embeddings.position_ids": np.arange(12)[None]}


def without_prefix(tensors: dict) -> dict:
    return renamed(lambda name: name.removeprefix("text_model."))(tensors)


@pytest.mark.parametrize("change", [as_saved, in_the_old_way, without_prefix])
@pytest.mark.parametrize("with_projection", [False, True])
def test_clip_comes_back(tmp_path: pathlib.Path, change: Callable[[dict], dict], with_projection: bool):
    reference = random_clip(with_projection=with_projection, **CLIP)
    reference.save_pretrained(tmp_path / "text_encoder")
    rewrite(tmp_path / "text_encoder", change)
    last, features = compiled(load_clip_text(tmp_path, "text_encoder"))(IDS)
    expected = reference(torch.from_numpy(IDS))
    assert_close(last, expected.last_hidden_state)
    assert ("text_embeds" in features) == with_projection
    if with_projection:
        assert_close(features["text_embeds"], expected.text_embeds)


VISION = dict(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
)


def dual(kind: str, **config: Any) -> Any:
    """A model of texts and pictures."""
    model, config_class = getattr(transformers, f"{kind}Model"), getattr(transformers, f"{kind}Config")
    return randomise(model(config_class(text_config=config, vision_config=VISION, projection_dim=20)))


@pytest.mark.parametrize("kind", ["CLIP", "MetaClip2"])
def test_text_half_comes_back(tmp_path: pathlib.Path, kind: str):
    """Where the end of text is token 2, MetaCLIP 2 looks for it and CLIP for the largest id; some rows are padded."""
    reference = dual(kind, **dict(CLIP, hidden_act="gelu"))
    reference.save_pretrained(tmp_path)
    ids = np.where(IDS == 2, 3, IDS)
    ids[:, 6], mask = 2, (np.arange(9)[None] < [[9], [7], [8]]).astype(np.int32)
    last, features = compiled(load_clip_text(tmp_path))(ids, mask)
    inputs = dict(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    expected = reference.text_model(**inputs, output_hidden_states=True)
    assert_close(last, expected.last_hidden_state)
    for ours, theirs in zip(features["hidden_states"], expected.hidden_states, strict=True):
        assert_close(ours, theirs)
    assert_close(features["text_embeds"], reference.text_projection(expected.pooler_output))


def test_old_second_place_of_the_text_config_is_believed(tmp_path: pathlib.Path):
    dual("CLIP", **CLIP).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    wrong = config["text_config"] | {"intermediate_size": 128}
    path.write_text(json.dumps(config | {"text_config": wrong, "text_config_dict": {"intermediate_size": 64}}))
    load_clip_text(tmp_path)
    path.write_text(json.dumps(config | {"text_config": wrong}))
    with pytest.raises(PeaError, match=r"fc1.weight is \[64, 32\], must be \[128, 32\]"):
        load_clip_text(tmp_path)


def from_tensorflow(tensors: dict) -> dict:
    endings = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return renamed(lambda name: next((name.replace(a, b) for a, b in endings.items() if a in name), name))(tensors)


@pytest.mark.parametrize("change", [as_saved, from_tensorflow])
@pytest.mark.parametrize(
    "kind",
    [
        transformers.BertModel,
        transformers.BertForMaskedLM,
        transformers.XLMRobertaModel,
        transformers.XLMRobertaForMaskedLM,
    ],
)
def test_bert_comes_back(tmp_path: pathlib.Path, change: Callable[[dict], dict], kind: type):
    """With its pooler, or with prefix and head."""
    reference = randomise(kind(kind.config_class(**BERT)))
    reference.save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    last, _ = compiled(load_bert(tmp_path))(IDS)
    encoder = getattr(reference, kind.base_model_prefix, reference)
    assert_close(last, encoder(torch.from_numpy(IDS)).last_hidden_state)


def test_dtype_is_of_storage_and_computation(tmp_path: pathlib.Path):
    random_bert(**BERT).save_pretrained(tmp_path)
    model = load_bert(tmp_path, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(model, IDS)[0].dtype == jnp.bfloat16


def test_q4_blocks():
    """Low halves first, then the high halves; a scale may be negative."""
    packed = np.zeros((2, 2, 16), np.uint8)
    packed[1, 0, 3], packed[1, 1, 15] = 0xF1, 0x0A
    weights = dequantise(packed, np.array([[1, 1], [-0.5, 2]], np.float16))
    expected = np.full((2, 64), -8.0, np.float32)
    expected[1, :32], expected[1, 32:] = 4, -16
    expected[1, 3], expected[1, 19], expected[1, 47], expected[1, 63] = 3.5, -3.5, 4, -16
    np.testing.assert_array_equal(weights, expected)


def test_shipped_encoder_equals_transformers():
    """All 12 layers, in transformers filled with the values of each block worked out one by one."""
    tensors = {name: torch.from_numpy(value) for name, value in load_file(E5 / "model_q4.safetensors").items()}
    for name in [name.removesuffix(".q4") for name in tensors if name.endswith(".q4")]:
        packed, scale = tensors.pop(f"{name}.q4").int(), tensors.pop(f"{name}.d").float()
        blocks = torch.cat([packed % 16, packed // 16], -1) - 8
        tensors[name] = (blocks * scale.unsqueeze(-1)).flatten(1)
    config = transformers.BertConfig.from_pretrained(E5)
    reference = transformers.BertModel(config, add_pooling_layer=False).eval()
    assert not reference.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}).missing_keys
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (3, 11))
    mask = (np.arange(11)[None] < [[11], [5], [8]]).astype(np.int32)
    last, features = compiled(load_bert(E5))(ids, mask)
    with torch.no_grad():
        expected = reference(torch.from_numpy(ids), torch.from_numpy(mask), output_hidden_states=True)
    assert_close(last, expected.last_hidden_state)
    for ours, theirs in zip(features["hidden_states"], expected.hidden_states, strict=True):
        assert_close(ours, theirs)


def broken(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], dict]:
    return lambda tensors: tensors | {name: change(tensors[name])}


KEY = "encoder.layer.0.output.dense.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed(lambda name: name.replace("query", "queri")), "2 missing .*query.* 2 unexpected .*queri"),
        (broken(KEY, lambda x: x.T), rf"{KEY} is \[64, 32\], must be \[32, 64\]"),
        (broken(KEY, lambda x: x.astype(np.int32)), f"{KEY} is int32"),
        (lambda tensors: tensors | {f"{KEY}.q4": np.zeros((32, 2, 16), np.uint8)}, rf"{KEY}.q4 has no {KEY}.d"),
        (
            lambda tensors: (
                tensors | {f"{KEY}.q4": np.zeros((32, 2, 16), np.uint8), f"{KEY}.d": np.zeros((32, 4), np.float16)}
            ),
            r"\.q4 uint8\[32, 2, 16\] and \.d float16\[32, 4\] must be",
        ),
    ],
)
def test_wrong_tensors_are_named(tmp_path: pathlib.Path, change: Callable[[dict], dict], message: str):
    random_bert(**BERT).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(PeaError, match=message) as caught:
        load_bert(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_config_is_named(tmp_path: pathlib.Path):
    random_clip(with_projection=False, **CLIP).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_act": "silu"}))
    with pytest.raises(PeaError, match=f"{path}: hidden_act: 'silu' is not supported"):
        load_clip_text(tmp_path)


def test_missing_weights_are_named(tmp_path: pathlib.Path):
    random_bert(**BERT).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(PeaError, match=f"{tmp_path}: neither model.safetensors nor pytorch_model.bin"):
        load_bert(tmp_path)
