"""CLIP's picture encoder against transformers."""

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from pea_jax.weights import fill
from tests.tiny_text_models import assert_close, randomise
from tests.torch_oracle import compiled, nchw, normal

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, projection_dim=20)
CONFIGS = {
    "openai": dict(SMALL, image_size=16, patch_size=8),
    "huge": dict(SMALL, image_size=21, patch_size=7, hidden_act="gelu"),
    "odd": dict(
        hidden_size=45, intermediate_size=50, num_hidden_layers=3, num_attention_heads=3, projection_dim=51,
        image_size=14, patch_size=4, layer_norm_eps=1e-3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_all_outputs_agree(name: str):
    config = transformers.CLIPVisionConfig(**CONFIGS[name])
    reference = randomise(transformers.CLIPVisionModelWithProjection(config))
    tensors = {name.removeprefix("vision_model."): x.detach().numpy() for name, x in reference.named_parameters()}
    ours = CLIPVisionConfig.from_dict(config.to_dict())
    model = fill(nnx.eval_shape(lambda: CLIPVision(ours)), tensors, source="test")
    pixels = normal(3, config.image_size, config.image_size, 3)
    with torch.no_grad():
        expected = reference(nchw(pixels), output_hidden_states=True)
    last, features = compiled(model)(pixels)
    assert_close(features["image_embeds"], expected.image_embeds)
    assert_close(last, expected.last_hidden_state)
    # From transformers 5.13 on, the first of these comes before the first norm and not after it.
    for state, theirs in zip(features["hidden_states"][1:], expected.hidden_states[1:], strict=True):
        assert_close(state, theirs)


def test_wrong_fields_are_named():
    def refused(**fields) -> str:
        with pytest.raises(PeaError) as error:
            CLIPVisionConfig.from_dict({**CONFIGS["openai"], **fields})
        return str(error.value)

    said = refused(rope_theta=1e4, use_registers=True)
    assert "'rope_theta' is not known" in said and "'use_registers' is not known" in said
    assert "model_type='vit' is not supported" in refused(model_type="vit")
    assert "num_channels=4 is not supported" in refused(num_channels=4)
    assert "hidden_act: 'relu'" in refused(hidden_act="relu")
    assert "patch_size=[14, 14] must be a whole number" in refused(patch_size=[14, 14])
    assert "hidden_size=33 must be a multiple of num_attention_heads=4" in refused(hidden_size=33)
    assert "patch_size=17 is larger" in refused(patch_size=17)
    assert CLIPVisionConfig.from_dict({"transformers_version": "4.24.0", "top_k": 50}) == CLIPVisionConfig()


def test_a_picture_of_another_size_is_refused():
    model = nnx.eval_shape(lambda: CLIPVision(CLIPVisionConfig.from_dict(CONFIGS["openai"])))
    with pytest.raises(PeaError, match=r"pictures \(16, 17, 3\) must be \(16, 16, 3\)"):
        jax.eval_shape(model, np.zeros((1, 16, 17, 3), np.float32))
