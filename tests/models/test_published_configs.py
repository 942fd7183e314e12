"""Parameter names and shapes of every full-size model, built without memory here and by PyTorch."""

import functools
import json
import math
import time

import diffusers
import numpy as np
import pytest
import torch
from flax import nnx

from pea_jax.models.controlnet import ControlNet, ControlNetConfig
from pea_jax.models.layers import abstract
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from pea_jax.models.vae import AutoencoderKL, VAEConfig
from pea_jax.weights.torch_names import torch_axes, torch_name
from tests import published_configs

KINDS = {
    "unet": (published_configs.UNETS, UNetConfig, UNet2DCondition, diffusers.UNet2DConditionModel),
    "vae": (published_configs.VAES, VAEConfig, AutoencoderKL, diffusers.AutoencoderKL),
    "controlnet": (published_configs.CONTROLNETS, ControlNetConfig, ControlNet, diffusers.ControlNetModel),
}
Shapes = dict[str, tuple[int, ...]]


@functools.cache
def pytorch_shapes(kind: str, config: str) -> Shapes:
    with torch.device("meta"):
        oracle = KINDS[kind][3].from_config(json.loads(config))
    return {name: tuple(value.shape) for name, value in oracle.state_dict().items()}


@functools.cache
def our_shapes(kind: str, config: UNetConfig | VAEConfig | ControlNetConfig) -> Shapes:
    model = abstract(lambda: KINDS[kind][2](config))
    return {
        torch_name(path): tuple(np.array(value.shape)[np.argsort(torch_axes(path, value.ndim))])
        for path, value in nnx.to_flat_state(nnx.state(model))
    }


# Each of them has its like in the quick tests.
LARGEST = ("sdxl-inpainting-0.1", "kolors", "sdxl-canny")
MODELS = [
    pytest.param(kind, name, marks=[pytest.mark.slow] if name in LARGEST else [], id=f"{kind}-{name}")
    for kind in KINDS
    for name in KINDS[kind][0]
]


@pytest.mark.parametrize(("kind", "name"), MODELS)
def test_parameters_are_those_of_pytorch(kind, name):
    config = KINDS[kind][0][name]
    ours = our_shapes(kind, KINDS[kind][1].from_dict(config))
    structure = {field: value for field, value in config.items() if field != "sample_size"}
    assert ours == pytorch_shapes(kind, json.dumps(structure, sort_keys=True))
    if published := published_configs.PARAMETERS.get(name):
        assert sum(map(math.prod, ours.values())) == pytest.approx(published, rel=0.03)


def test_full_sdxl_is_built_quickly():
    config = UNetConfig.from_dict(published_configs.SDXL)
    start = time.process_time()
    model = abstract(lambda: UNet2DCondition(config))
    assert time.process_time() - start < 5
    assert sum(math.prod(value.shape) for _, value in nnx.to_flat_state(nnx.state(model))) == 2_567_463_684
