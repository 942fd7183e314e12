"""ControlNet against PyTorch diffusers."""

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel

from pea_jax.errors import PeaError
from pea_jax.models.controlnet import ControlNetConfig
from pea_jax.weights import load_controlnet
from tests import published_configs
from tests.torch_oracle import compiled, nchw, nhwc, normal, randomised, relative_error

CONFIGS = {
    "sdxl": published_configs.small(published_configs.CONTROLNETS["sdxl-canny"]),
    "sd-1.5": published_configs.small(published_configs.CONTROLNETS["sd-1.5-canny"]),
    "odd": dict(
        in_channels=3,
        conditioning_channels=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=(12, 20),
        layers_per_block=1,
        attention_head_dim=3,
        cross_attention_dim=7,
        encoder_hid_dim=5,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(3, 5),
        controlnet_conditioning_channel_order="bgr",
        global_pool_conditions=True,
    ),
}
# Batch, height, width, and how many times larger the picture is.
SIZES = {"sdxl": (2, 7, 10, 8), "sd-1.5": (1, 8, 16, 8), "odd": (3, 5, 6, 2)}


def inputs(name: str) -> dict[str, np.ndarray]:
    config, (batch, height, width, times) = CONFIGS[name], SIZES[name]
    channels = config.get("conditioning_channels", 3)
    arrays = {
        "sample": normal(batch, height, width, config["in_channels"]),
        "timesteps": np.array([7, 981, 400][:batch], np.int32),
        "prompt_embeds": normal(batch, 6, config.get("encoder_hid_dim") or config["cross_attention_dim"], seed=1),
        "controlnet_cond": np.random.default_rng(4).random(
            (batch, times * height, times * width, channels), np.float32
        ),
    }
    if config.get("addition_embed_type"):
        arrays |= {"text_embeds": normal(batch, 10, seed=2), "time_ids": normal(batch, 6, seed=3)}
    return arrays


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Name, PyTorch model, our model loaded from what the PyTorch model saved."""
    folder = tmp_path_factory.mktemp(request.param)
    oracle = randomised(ControlNetModel.from_config(CONFIGS[request.param]))
    oracle.save_pretrained(folder)
    return request.param, oracle, load_controlnet(folder)


@torch.no_grad()
def call_torch(oracle, arrays, conditioning_scale):
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    prompt_embeds = tensors["prompt_embeds"]
    if oracle.encoder_hid_proj is not None:  # which diffusers builds but leaves to the caller
        prompt_embeds = oracle.encoder_hid_proj(prompt_embeds)
    down, mid = oracle(
        nchw(arrays["sample"]),
        tensors["timesteps"],
        prompt_embeds,
        nchw(arrays["controlnet_cond"]),
        conditioning_scale=conditioning_scale,
        added_cond_kwargs={name: tensors.get(name) for name in ("text_embeds", "time_ids")},
        return_dict=False,
    )
    return [nhwc(residual) for residual in down], nhwc(mid)


def test_residuals(pair):
    name, oracle, controlnet = pair
    arrays = inputs(name)
    down, mid = call_torch(oracle, arrays, 0.7)
    our_down, our_mid = compiled(controlnet)(**arrays, conditioning_scale=0.7)
    assert len(our_down) == len(down)
    for ours, theirs in zip([*our_down, our_mid], [*down, mid], strict=True):
        assert relative_error(ours, theirs) <= 1e-4


@pytest.mark.parametrize("pair", ["odd"], indirect=True)
def test_picture_of_another_size(pair):
    name, _, controlnet = pair
    arrays = inputs(name)
    arrays["controlnet_cond"] = arrays["controlnet_cond"][:, 2:]
    with pytest.raises(PeaError, match=r"controlnet_cond is \(8, 12\), must be 2 times the sample's \(5, 6\)"):
        controlnet(**arrays)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("controlnet_conditioning_channel_order", "gbr"),
        ("conditioning_embedding_out_channels", None),
        ("conditioning_channels", [3]),
        ("global_pool_conditions", "yes"),
        ("mid_block_type", None),
        ("up_block_types", ["UpBlock2D"]),
        ("num_control_type", 6),
    ],
)
def test_unsupported_fields_are_named(field, value):
    with pytest.raises(PeaError, match=field):
        ControlNetConfig.from_dict({field: value})
