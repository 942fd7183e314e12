"""T5 v1.1, mT5 and uMT5 against transformers, on folders that transformers wrote."""

import pathlib

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.models.t5.modeling_t5 import T5Attention

from pea_jax.errors import PeaError
from pea_jax.models.t5 import T5Config, position_buckets
from pea_jax.weights.t5 import load_t5
from tests.tiny_text_models import assert_close, randomise
from tests.torch_oracle import compiled

TINY = dict(
    vocab_size=60, d_model=24, d_kv=5, d_ff=40, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu",
    relative_attention_num_buckets=8, relative_attention_max_distance=12, layer_norm_epsilon=1e-4,
)  # fmt: skip
KINDS = {
    "t5": (transformers.T5Config, transformers.T5EncoderModel),
    "mt5": (transformers.MT5Config, transformers.MT5ForConditionalGeneration),
    "umt5": (transformers.UMT5Config, transformers.UMT5Model),
}
IDS = np.random.default_rng(0).integers(0, 60, (3, 14))
MASK = (np.arange(14)[None] < [[14], [5], [1]]).astype(np.int32)


def saved(folder: pathlib.Path, kind: str) -> torch.nn.Module:
    """Writes a random model; returns its encoder."""
    config, model = KINDS[kind]
    reference = randomise(model(config(**TINY, num_decoder_layers=1)))
    with torch.no_grad():  # without scaling, larger products would leave no gradation to the softmax
        for name, parameter in reference.named_parameters():
            if name.endswith((".q.weight", ".k.weight")):
                parameter.mul_(0.4)
    reference.save_pretrained(folder)
    return reference.get_encoder()


@pytest.mark.parametrize("kind", KINDS)
def test_all_outputs_agree(tmp_path: pathlib.Path, kind: str):
    reference = saved(tmp_path, kind)
    run = compiled(load_t5(tmp_path))
    for mask in (None, MASK):
        torch_mask = None if mask is None else torch.from_numpy(mask)
        expected = reference(torch.from_numpy(IDS), attention_mask=torch_mask, output_hidden_states=True)
        last, features = run(IDS, mask)
        assert_close(last, expected.last_hidden_state)
        for ours, theirs in zip(features["hidden_states"], expected.hidden_states, strict=True):
            assert_close(ours, theirs)


def test_both_names_of_the_words_are_read(tmp_path: pathlib.Path):
    saved(tmp_path, "t5")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    expected = tensors["shared.weight"]
    save_file(tensors | {"encoder.embed_tokens.weight": expected}, path)
    np.testing.assert_array_equal(load_t5(tmp_path).shared.embedding[...], expected)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, path)
    np.testing.assert_array_equal(load_t5(tmp_path).shared.embedding[...], expected)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 12)])
def test_every_distance_is_in_pytorchs_bucket(num_buckets: int, max_distance: int):
    positions = torch.arange(600)
    expected = T5Attention._relative_position_bucket(
        positions[None] - positions[:, None], num_buckets=num_buckets, max_distance=max_distance
    )
    np.testing.assert_array_equal(position_buckets(600, num_buckets, max_distance), expected)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(relative_attention_num_buckets=3), "relative_attention_num_buckets=3 must be a whole number from 4 to"),
        (dict(relative_attention_max_distance=8), "relative_attention_max_distance=8 must be a whole number from 9 to"),
    ],
)
def test_distances_need_buckets(fields: dict[str, int], said: str):
    with pytest.raises(PeaError, match=said):
        T5Config.from_dict({"model_type": "mt5", **fields})


@pytest.mark.parametrize("config", [{"feed_forward_proj": "relu"}, {"model_type": "t5"}])
def test_the_original_t5_is_refused(config: dict):
    with pytest.raises(PeaError, match="feed_forward_proj='relu' is not supported"):
        T5Config.from_dict(config)
