"""BERT and XLM-R against transformers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models.bert import Bert, BertConfig
from pea_jax.weights import fill
from tests.tiny_text_models import assert_close, random_bert, random_xlm_roberta, state_dict
from tests.torch_oracle import compiled

SMALL = dict(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=12,
)  # fmt: skip
CONFIGS = {
    "e5": SMALL,
    "tanh": dict(SMALL, hidden_act="gelu_new", layer_norm_eps=1e-3, type_vocab_size=1),
    "odd": dict(
        vocab_size=33, hidden_size=45, intermediate_size=50, num_hidden_layers=3, num_attention_heads=3,
        max_position_embeddings=9, hidden_act="relu", type_vocab_size=3, pad_token_id=5,
    ),
    "xlm-r": dict(SMALL, layer_norm_eps=1e-5, type_vocab_size=1),
    "xlm-r, odd padding": dict(SMALL, pad_token_id=3),
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def models(request: pytest.FixtureRequest) -> tuple:
    random_model = random_xlm_roberta if request.param.startswith("xlm-r") else random_bert
    reference = random_model(**CONFIGS[request.param])
    config = BertConfig.from_dict(reference.config.to_dict())
    model = nnx.eval_shape(lambda: Bert(config))
    return reference, fill(model, state_dict(reference, ""), source="test")


@pytest.mark.parametrize("masked", [False, True])
def test_all_outputs_agree(models: tuple, masked: bool):
    reference, model = models
    length = 7 if masked else model.config.max_length
    ids = np.random.default_rng(1).integers(0, reference.config.vocab_size, (3, length))
    ids[0, 2] = reference.config.pad_token_id
    mask = (np.arange(length)[None] < [[length], [4], [1]]).astype(np.int32) if masked else None
    if masked:
        ids = np.where(mask, ids, reference.config.pad_token_id)
    torch_mask = None if mask is None else torch.from_numpy(mask)
    expected = reference(torch.from_numpy(ids), attention_mask=torch_mask, output_hidden_states=True)
    last, features = compiled(model)(jnp.asarray(ids, jnp.int32), mask)
    assert_close(last, expected.last_hidden_state)
    assert len(features["hidden_states"]) == len(expected.hidden_states)
    for ours, theirs in zip(features["hidden_states"], expected.hidden_states, strict=True):
        assert_close(ours, theirs)


def test_masked_tokens_reach_no_other(models: tuple):
    _, model = models
    ids = np.random.default_rng(2).integers(0, 33, (3, 7))
    mask = np.arange(7)[None] < [[7], [4], [1]]
    run = compiled(model)
    before, after = (np.asarray(run(each, mask)[0]) for each in (ids, np.where(mask, ids, 3)))
    np.testing.assert_array_equal(before[mask], after[mask])


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_act": "silu"},
        {"num_attention_heads": 5},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
    ],
)
def test_impossible_config_is_refused(fields: dict):
    with pytest.raises(PeaError, match=next(iter(fields))):
        BertConfig.from_dict(SMALL | fields)


def test_xlm_r_has_fewer_positions_than_rows():
    config = BertConfig.from_dict(dict(SMALL, model_type="xlm-roberta", pad_token_id=1))
    assert config.max_length == 10
    with pytest.raises(PeaError, match="11 tokens are more than the 10 positions"):
        Bert(config)(jnp.zeros((1, 11), jnp.int32))


def test_too_many_tokens_are_refused():
    with pytest.raises(PeaError, match="13 tokens are more than the 12 positions"):
        Bert(BertConfig.from_dict(SMALL))(jnp.zeros((1, 13), jnp.int32))
