"""Tiny random models of the architectures that adapters are used with, an adapter for all of them, and the examples."""

import dataclasses
import importlib
import pathlib
import types
from collections.abc import Callable

import diffusers
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from pea_jax import pytorch
from pea_jax.text.conditioner import AdapterConditioner
from tests import language_clips as clips
from tests import published_configs, tiny_sdxl
from tests.pytorch.test_adapter import save as save_adapter
from tests.sampling.test_denoiser import certain
from tests.tiny_text_models import random_bert
from tests.torch_oracle import randomised

SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
LEADING = diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading")
TURBO = diffusers.EulerAncestralDiscreteScheduler(**SCHEDULE, timestep_spacing="trailing")
SHORT = dict(layers_per_block=1, transformer_layers_per_block=[1, 1, 1])  # where these are not the point


@dataclasses.dataclass(frozen=True)
class World:
    """`folder` holds the models by name, `adapter` is a directory; it is also there loaded."""

    folder: pathlib.Path
    adapter: pathlib.Path
    conditioner: AdapterConditioner
    torch_adapter: pytorch.PEAdapter


@pytest.fixture(scope="session")
def downstream(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("downstream")
    base = save_model(folder / "sdxl", "sdxl-base-1.0", LEADING, seed=0, **SHORT)
    save_model(folder / "tuned", "sdxl-base-1.0", LEADING, seed=1, **SHORT)
    save_model(folder / "inpainting", "sdxl-inpainting-0.1", LEADING, seed=2, **SHORT)
    save_model(folder / "ssd-1b", "ssd-1b", LEADING, seed=3)
    save_model(folder / "turbo", "sdxl-turbo", TURBO, seed=4, **SHORT)
    controlnet = ControlNetModel.from_unet(base, conditioning_embedding_out_channels=(2, 3, 4, 6))
    randomised(controlnet, seed=5).save_pretrained(folder / "controlnet")
    save_lora(base, folder / "style.safetensors", seed=6)
    save_lora(base, folder / "lcm.safetensors", seed=7)
    size = clips.save_cased_tokenizer(folder / "text")
    random_bert(**clips.SMALL, vocab_size=size).save_pretrained(folder / "text")
    dims = dict(hidden_dim=8, pooled_dim=10, output_dim=24)
    conditioner = save_adapter(folder / "adapter", str(folder / "text"), dims, context_length=12)
    return World(folder, folder / "adapter", conditioner, pytorch.PEAdapter.from_pretrained(folder / "adapter"))


def save_model(
    folder: pathlib.Path, architecture: str, scheduler: diffusers.SchedulerMixin, seed: int, **fewer: object
) -> UNet2DConditionModel:
    config = published_configs.small(published_configs.UNETS[architecture]) | fewer
    unet = randomised(UNet2DConditionModel.from_config(config), seed)
    vae = certain(randomised(tiny_sdxl.random_vae(), seed=9))
    none = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    StableDiffusionXLPipeline(unet=unet, vae=vae, scheduler=scheduler, **none).save_pretrained(folder)
    return unet


def save_lora(base: UNet2DConditionModel, path: pathlib.Path, seed: int) -> None:
    """As diffusers' training scripts save it: alpha, which is not the rank, stands in the metadata alone."""
    unet = UNet2DConditionModel.from_config(base.config)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1"]))
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: 0.3 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in get_peft_model_state_dict(unet).items()
    }
    stated = dict(unet_lora_adapter_metadata=unet.peft_config["default"].to_dict())
    StableDiffusionXLPipeline.save_lora_weights(path.parent, layers, weight_name=path.name, **stated)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """A script of `examples/` as a module."""
    monkeypatch.syspath_prepend("examples")
    return importlib.import_module
