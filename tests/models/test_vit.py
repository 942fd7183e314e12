"""The plain ViT against transformers."""

import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file

from pea_jax.errors import PeaError
from pea_jax.models.vit import ViTConfig, ViTWithProjection
from pea_jax.weights import fill
from pea_jax.weights.rinna_vision import to_our_names
from tests.tiny_text_models import assert_close, randomise
from tests.torch_oracle import compiled, nchw, normal

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
CONFIGS = {
    "square": dict(SMALL, image_size=16, patch_size=8),
    "odd": dict(SMALL, image_size=14, patch_size=4, layer_norm_eps=1e-3, hidden_act="quick_gelu"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_states_and_projection_agree(tmp_path, name: str):
    config = transformers.ViTConfig(**CONFIGS[name])
    reference = randomise(transformers.ViTModel(config, add_pooling_layer=False))
    reference.save_pretrained(tmp_path)
    stored = {f"vision_model.{name}": array for name, array in load_file(tmp_path / "model.safetensors").items()}
    matrix = normal(20, 32, seed=1)
    ours = ViTConfig.from_dict(config.to_dict() | {"projection_dim": 20})
    model = nnx.eval_shape(lambda: ViTWithProjection(ours))
    model = fill(model, to_our_names(stored | {"visual_projection.weight": matrix}), source="test")
    pixels = normal(3, config.image_size, config.image_size, 3)
    with torch.no_grad():
        expected = reference(nchw(pixels)).last_hidden_state
    last, features = compiled(model)(pixels)
    assert_close(last, expected)
    assert_close(features["pooled"], expected[:, 0])
    assert_close(features["image_embeds"], expected[:, 0] @ torch.from_numpy(matrix).T)


def test_defaults_are_those_of_transformers():
    fields = transformers.ViTConfig().to_dict()
    assert ViTConfig.from_dict(fields) == ViTConfig.from_dict({}) == ViTConfig()
    assert {name: getattr(ViTConfig(), name) for name in CONFIGS["odd"]} == {
        name: fields[name] for name in CONFIGS["odd"]
    }


def test_wrong_fields_are_named():
    def refused(**fields) -> str:
        with pytest.raises(PeaError) as error:
            ViTConfig.from_dict({**CONFIGS["square"], **fields})
        return str(error.value)

    assert "qkv_bias=False is not supported" in refused(qkv_bias=False)
    assert "model_type='vit_mae' is not supported (only 'vit')" in refused(model_type="vit_mae")
    assert "'mask_ratio' is not known" in refused(mask_ratio=0.75)
    assert "hidden_act: 'gelu_fast'" in refused(hidden_act="gelu_fast")
    assert "patch_size=17 is larger" in refused(patch_size=17)


def test_vit_b_has_as_many_parameters_as_published():
    """google/vit-base-patch16-224 without its head and pooler, which rinna's began from."""
    state = nnx.state(nnx.eval_shape(lambda: ViTWithProjection(ViTConfig())).vision_model)
    assert sum(np.prod(value.shape) for _, value in nnx.to_flat_state(state)) == 85_798_656
