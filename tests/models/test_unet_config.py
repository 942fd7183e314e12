"""What the UNet does not do is refused by name."""

import json

import pytest
from diffusers import UNet2DConditionModel

from pea_jax.errors import PeaError
from pea_jax.models.unet_config import UNetConfig
from tests import published_configs


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("only_cross_attention", True),
        ("class_embed_type", "timestep"),
        ("encoder_hid_dim_type", "text_proj"),
        ("encoder_hid_dim_type", "image_proj"),
        ("encoder_hid_dim", "512"),
        ("time_cond_proj_dim", 0),
        ("resnet_time_scale_shift", "scale_shift"),
        ("conv_in_kernel", 5),
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("addition_embed_type", "image"),
        ("addition_embed_type", "text_time"),
        ("down_block_types", ["AttnDownBlock2D"] * 4),
        ("up_block_types", ["DownBlock2D"] * 4),
        ("up_block_types", ["UpBlock2D"] * 3),
        ("layers_per_block", [1, 2]),
        ("attention_head_dim", [5, 10, 20]),
        ("num_attention_heads", 8),
        ("transformer_layers_per_block", [1, 1, [1, 2], 1]),
        ("transformer_layers_per_block", [1, 1, [1], 1]),
        ("transformer_layers_per_block", [1, 1, -1, 1]),
        ("reverse_transformer_layers_per_block", [1, [1, 1], 1, 1]),
        ("norm_num_groups", 7),
        ("norm_num_groups", None),
        ("in_channels", [4]),
        ("out_channels", 0),
        ("block_out_channels", []),
        ("block_out_channels", [320, "640", 1280, 1280]),
        ("layers_per_block", True),
        ("time_embedding_dim", 1.5),
        ("freq_shift", None),
        ("invented_by_a_later_version", 3),
    ],
)
def test_unsupported_fields_are_named(field, value):
    with pytest.raises(PeaError, match=field) as error:
        UNetConfig.from_dict({field: value})
    assert "\n" not in str(error.value)


def test_defaults_are_those_of_diffusers(tmp_path):
    UNet2DConditionModel(block_out_channels=(32, 32, 32, 32)).save_config(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert UNetConfig.from_dict(saved) == UNetConfig.from_dict({"block_out_channels": (32, 32, 32, 32)})


def test_transformer_layers_of_every_resnet():
    config = UNetConfig.from_dict({"transformer_layers_per_block": [1, 2, 3, 4], "layers_per_block": [1, 2, 1, 2]})
    assert config.down_transformer_layers == ((1,), (2, 2), (3,), (0, 0))
    assert config.mid_transformer_layers == 4
    assert config.up_transformer_layers == ((0, 0, 0), (3, 3), (2, 2, 2), (1, 1))


def test_transformer_layers_of_pruned_models():
    """A number for each resnet; blocks without attention may be given anything."""
    config = UNetConfig.from_dict(published_configs.UNETS["ssd-1b"])
    assert config.down_transformer_layers == ((0, 0), (2, 2), (4, 4))
    assert config.mid_transformer_layers == 0
    assert config.up_transformer_layers == ((4, 4, 10), (2, 1, 1), (0, 0, 0))
    vega = published_configs.UNETS["segmind-vega"]
    spelled = {"transformer_layers_per_block": [0, 1, 2], "reverse_transformer_layers_per_block": None}
    assert UNetConfig.from_dict(vega | spelled) == UNetConfig.from_dict(vega)


def test_prompt_and_pooled_widths():
    widths = {
        name: (config.prompt_embed_dim, config.pooled_dim if config.addition_embed_type else None)
        for name, config in ((name, UNetConfig.from_dict(fields)) for name, fields in published_configs.UNETS.items())
    }
    assert widths["sdxl-base-1.0"] == (2048, 1280)
    assert widths["kolors"] == (4096, 4096)
    assert widths["sd-2.1"] == (1024, None)
    with pytest.raises(PeaError, match="no pooled"):
        _ = UNetConfig.from_dict(published_configs.SD15).pooled_dim
