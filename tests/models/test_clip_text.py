"""CLIP's text encoder against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.weights import fill
from tests.tiny_text_models import assert_close, random_clip, state_dict
from tests.torch_oracle import compiled

SMALL = dict(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=12,
)  # fmt: skip
CONFIGS = {
    "clip": dict(SMALL, hidden_act="quick_gelu", eos_token_id=2, with_projection=False),
    "bigg": dict(SMALL, hidden_act="gelu", eos_token_id=7, projection_dim=20, with_projection=True),
    "odd": dict(
        vocab_size=33, hidden_size=45, intermediate_size=50, num_hidden_layers=3, num_attention_heads=3,
        max_position_embeddings=9, hidden_act="quick_gelu", layer_norm_eps=1e-3, eos_token_id=2, projection_dim=51,
        with_projection=True,
    ),
}  # fmt: skip


def abstract(reference: torch.nn.Module, with_projection: bool) -> CLIPText:
    config = CLIPTextConfig.from_dict(reference.config.to_dict())
    return nnx.eval_shape(lambda: CLIPText(config, with_projection))


@pytest.fixture(params=CONFIGS)
def models(request: pytest.FixtureRequest) -> tuple:
    reference = random_clip(**CONFIGS[request.param])
    model = abstract(reference, CONFIGS[request.param]["with_projection"])
    return reference, fill(model, state_dict(reference, "text_model."), source="test")


def random_ids(reference: torch.nn.Module, length: int) -> np.ndarray:
    """`[3, length]`, with the end-of-text token twice in each row, and larger ids around it."""
    rng = np.random.default_rng(1)
    ids = rng.integers(8, reference.config.vocab_size, (3, length))
    ids[np.arange(3)[:, None], [[2, 5], [1, length - 1], [3, 4]]] = reference.config.eos_token_id
    return ids


@pytest.mark.parametrize("masked", [False, True])
def test_all_outputs_agree(models: tuple, masked: bool):
    reference, model = models
    length = 8 if masked else reference.config.max_position_embeddings
    ids = random_ids(reference, length)
    mask = (np.arange(length)[None] < [[length], [4], [6]]).astype(np.int32) if masked else None
    torch_mask = None if mask is None else torch.from_numpy(mask)
    expected = reference(torch.from_numpy(ids), attention_mask=torch_mask, output_hidden_states=True)
    last, features = compiled(model)(jnp.asarray(ids, jnp.int32), mask)
    assert_close(last, expected.last_hidden_state)
    assert len(features["hidden_states"]) == len(expected.hidden_states)
    for ours, theirs in zip(features["hidden_states"], expected.hidden_states, strict=True):
        assert_close(ours, theirs)
    if model.text_projection is None:
        assert_close(features["pooled"], expected.pooler_output)
        assert "text_embeds" not in features
    else:
        assert_close(features["text_embeds"], expected.text_embeds)


def test_end_of_text_rules_differ():
    """With id 2 the largest id of the row marks the end, with any other the first place where that id stands."""
    ids = np.array([[1, 9, 7, 2, 7, 5], [1, 7, 3, 30, 2, 7]])
    positions = {}
    for eos in (2, 7):
        reference = random_clip(with_projection=False, **SMALL, eos_token_id=eos)
        model = fill(abstract(reference, False), state_dict(reference, ""), source="test")
        last, features = compiled(model)(ids)
        assert_close(features["pooled"], reference(torch.from_numpy(ids)).pooler_output)
        distances = np.abs(np.asarray(last) - np.asarray(features["pooled"])[:, None]).sum(-1)
        positions[eos] = distances.argmin(-1).tolist()
    assert positions == {2: [1, 3], 7: [2, 1]}


def test_later_tokens_do_not_reach_earlier_ones(models: tuple):
    reference, model = models
    ids = random_ids(reference, 8)
    changed = ids.copy()
    changed[:, 5:] = 3
    run = compiled(model)
    before, after = (np.asarray(run(each)[0]) for each in (ids, changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 5:] - after[:, 5:]).max() > 0.1


def test_bfloat16_stays_near():
    reference = random_clip(**CONFIGS["bigg"])
    config = CLIPTextConfig.from_dict(reference.config.to_dict())
    model = nnx.eval_shape(lambda: CLIPText(config, True, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16))
    model = fill(model, state_dict(reference, "text_model."), source="test")
    ids = random_ids(reference, 8)
    last, features = compiled(model)(ids)
    assert last.dtype == features["text_embeds"].dtype == jnp.bfloat16
    assert_close(last, reference(torch.from_numpy(ids)).last_hidden_state, tolerance=0.15)


def test_openclip_bigg_has_the_published_size():
    config = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
    )
    shapes = nnx.state(nnx.eval_shape(lambda: CLIPText(config, True)), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 694_659_840


@pytest.mark.parametrize("fields", [{"hidden_act": "silu"}, {"num_attention_heads": 5}])
def test_impossible_config_is_refused(fields: dict):
    with pytest.raises(PeaError, match=next(iter(fields))):
        CLIPTextConfig.from_dict(SMALL | fields)


def test_too_many_tokens_are_refused():
    model = CLIPText(CLIPTextConfig.from_dict(SMALL), False)
    with pytest.raises(PeaError, match="13 tokens are more than the 12 positions"):
        model(jnp.zeros((1, 13), jnp.int32))
