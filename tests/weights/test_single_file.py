"""Checkpoints in one file, written under the published names of the first implementation, are the folders' equals."""

import pathlib
import re
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file

from pea_jax.errors import PeaError
from pea_jax.models.clip_text import CLIPTextConfig
from pea_jax.models.unet import UNetConfig
from pea_jax.models.vae import VAEConfig
from pea_jax.weights import load_clip_text, load_unet, load_vae, to_torch_names
from pea_jax.weights.single_file import base_config, convert, open_tensors
from pea_jax.weights.single_file_configs import CONFIGS
from tests import published_configs, tiny_sdxl
from tests.tiny_text_models import random_clip
from tests.torch_oracle import randomised
from tests.weights.test_lora import TEXT, first_implementation, sd15_unet

OUTSIDE_BLOCKS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE_PARTS = [
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{1 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample"),
    ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"), ("group_norm", "norm"),
    (r"to_(q|k|v)\.", r"\1."), (r"to_out\.0", "proj_out"),
]  # fmt: skip
OPEN_CLIP_PARTS = [
    (r"encoder\.layers\.", "transformer.resblocks."), ("self_attn", "attn"), ("layer_norm(?=[12])", "ln_"),
    (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"), ("final_layer_norm", "ln_final"),
    (r"embeddings\.token_embedding", "token_embedding"),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_projection\.weight", "text_projection"),
]  # fmt: skip


def replaced(name: str, parts: list) -> str:
    for pattern, new in parts:
        name = re.sub(pattern, new, name)
    return name


def unet_names(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, value in model.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        if module not in OUTSIDE_BLOCKS:
            inner = re.sub(r"^norm1$", "in_layers.0", module.rsplit(".", 1)[-1])
            inner = re.sub(r"^norm2$", "out_layers.0", inner)
            is_resnet_norm = "resnets" in module and inner != module.rsplit(".", 1)[-1]
            new = first_implementation(module)
            new = new.rsplit(".", 1)[0] + "." + inner if is_resnet_norm else new
        else:
            new = OUTSIDE_BLOCKS[module]
        tensors[f"model.diffusion_model.{new}.{leaf}"] = value
    return tensors


def vae_names(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Its attention is of 1x1 convolutions."""
    tensors = {}
    for name, value in model.state_dict().items():
        is_attention = "attentions" in name and "group_norm" not in name and value.ndim == 2
        tensors[prefix + replaced(name, VAE_PARTS)] = value[:, :, None, None] if is_attention else value
    return tensors


def clip_names(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    state = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
    return {f"{prefix}text_model.{name}": value for name, value in state.items()}


def open_clip_names(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Query, key and value in one; the projection multiplies from the right."""
    state = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
    tensors = {prefix + "logit_scale": torch.tensor(1.0)}
    for name, value in state.items():
        if ".k_proj." in name or ".v_proj." in name or "position_ids" in name:
            continue
        if ".q_proj." in name:
            value = torch.cat([state[name.replace("q_proj", kind)] for kind in ("q_proj", "k_proj", "v_proj")])
            name = name.replace("q_proj.", "in_proj_")
        value = value.T if name.startswith("text_projection") else value
        tensors[prefix + replaced(name, OPEN_CLIP_PARTS)] = value
    return tensors


@pytest.fixture(scope="module", params=["sd15", "sd21", "sdxl"])
def published(request, tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path, dict[str, torch.nn.Module]]:
    """A folder in the layout of diffusers, the single file of the same weights, and the text encoders."""
    folder = tmp_path_factory.mktemp(request.param)
    path, text = folder / "all.safetensors", {}
    unet = randomised(tiny_sdxl.random_unet(16, 8, levels=3) if request.param == "sdxl" else sd15_unet())
    vae = randomised(
        AutoencoderKL(
            block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=2,
        )
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    tensors = unet_names(unet) | vae_names(vae, "first_stage_model.")
    tensors |= {name: torch.zeros(1) for name in ("first_stage_model.loss.logvar", "model_ema.decay")}
    text["text_encoder"] = random_clip(with_projection=False, **TEXT)
    if request.param == "sdxl":
        text["text_encoder_2"] = random_clip(with_projection=True, **TEXT | {"hidden_size": 12})
        tensors |= clip_names(text["text_encoder"], "conditioner.embedders.0.transformer.")
        spare = "conditioner.embedders.0.text_projection", "conditioner.embedders.0.logit_scale"
        tensors |= open_clip_names(text["text_encoder_2"], "conditioner.embedders.1.model.")
    elif request.param == "sd21":
        tensors |= open_clip_names(text["text_encoder"], "cond_stage_model.model.")
        spare = ()
    else:
        tensors |= clip_names(text["text_encoder"], "cond_stage_model.transformer.")
        spare = ("cond_stage_model.transformer.text_projection.weight",)
    tensors |= {name: torch.eye(8) for name in spare}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return folder, path, text


def assert_same(actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert actual.keys() == wanted.keys()
    assert all(actual[name].tobytes() == wanted[name].tobytes() for name in wanted)


def test_unet_and_autoencoder_equal_those_of_the_folder(published):
    folder, path, _ = published
    assert_same(to_torch_names(load_unet(path, config=folder)), to_torch_names(load_unet(folder)))
    assert_same(to_torch_names(load_vae(path, config=folder)), to_torch_names(load_vae(folder)))


def test_diffusers_reads_the_file_so_too(published):
    folder, path, _ = published
    for kind, subfolder in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        theirs = kind.from_single_file(path, config=str(folder), subfolder=subfolder, local_files_only=True)
        load = load_unet if subfolder == "unet" else load_vae
        state = {name: value.numpy() for name, value in theirs.state_dict().items()}
        assert_same(to_torch_names(load(path, config=folder)), state)


def test_text_encoders(published):
    folder, path, text = published
    for component, model in text.items():
        tensors = convert(path, open_tensors(path, component), component, {"hidden_size": model.config.hidden_size})
        state = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
        read = {name: tensor[(slice(None),) * len(tensor.shape)] for name, tensor in tensors.items()}
        assert_same(
            {name.removeprefix("text_model."): np.ascontiguousarray(value) for name, value in read.items()},
            {name: value.numpy() for name, value in state.items()},
        )
        assert all(tensor.shape == value.shape for tensor, value in zip(tensors.values(), read.values(), strict=True))
        model.save_pretrained(folder / component)
        assert_same(
            to_torch_names(load_clip_text(path, component, config=folder)),
            to_torch_names(load_clip_text(folder, component)),
        )


def test_an_autoencoder_alone(published, tmp_path):
    folder, _, _ = published
    path = tmp_path / "vae.safetensors"
    save_file(
        {k: v.contiguous() for k, v in vae_names(AutoencoderKL.from_pretrained(folder / "vae"), "").items()}, path
    )
    assert_same(to_torch_names(load_vae(path, config=folder)), to_torch_names(load_vae(folder)))
    with pytest.raises(PeaError, match="config of its vae is not known .no UNet"):
        load_vae(path)


def refusal(load, *arguments, **options) -> str:
    with pytest.raises(PeaError) as error:
        load(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_wrong_with_a_file_is_said(published, tmp_path):
    folder, path, _ = published
    width = "8" if "sdxl" not in folder.name else "16"
    assert f"text states of width {width}); pass config=FOLDER" in refusal(load_unet, path)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(1)}, other)
    assert "no unet in it" in refusal(load_unet, other, config=folder)
    stranger = "model.diffusion_model.input_blocks.0.1.stranger"
    save_file({**unet_names(UNet2DConditionModel.from_pretrained(folder / "unet")), stranger: torch.ones(1)}, other)
    assert f"1 tensors of its unet are not known ({stranger})" in refusal(load_unet, other, config=folder)


def test_without_the_packages_that_translate(published, monkeypatch):
    folder, path, _ = published
    monkeypatch.setitem(sys.modules, "diffusers.loaders", None)
    assert 'pip install "pea_jax[torch,transformers]"' in refusal(load_unet, path, config=folder)


def test_configs_of_the_base_models_are_the_published_ones():
    ours = {base: UNetConfig.from_dict(CONFIGS[base]["unet"]) for base in CONFIGS}
    theirs = {"sdxl": "sdxl-base-1.0", "sd15": "sd-1.5", "sd21": "sd-2.1"}
    assert ours == {base: UNetConfig.from_dict(published_configs.UNETS[name]) for base, name in theirs.items()}
    factors = {base: VAEConfig.from_dict(CONFIGS[base]["vae"]).scaling_factor for base in CONFIGS}
    assert factors == {"sd15": 0.18215, "sd21": 0.18215, "sdxl": 0.13025}
    for base in CONFIGS.values():
        for name in base.keys() - {"unet", "vae"}:
            CLIPTextConfig.from_dict(base[name])


class Shaped:
    def __init__(self, *shape: int):
        self.shape = shape


def test_the_base_model_is_told_by_the_text_width():
    for width, base in ((768, "sd15"), (1024, "sd21"), (2048, "sdxl")):
        tensors = {
            "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": Shaped(640, width),
            "model.diffusion_model.input_blocks.0.0.weight": Shaped(320, 9, 3, 3),
        }
        path = pathlib.Path("model.safetensors")
        assert base_config(path, tensors, "unet") == CONFIGS[base]["unet"] | {"in_channels": 9}
        assert base_config(path, tensors, "vae") == CONFIGS[base]["vae"]
    with pytest.raises(PeaError, match="pass config=FOLDER"):
        base_config(path, tensors | {"edm_mean": Shaped(1)}, "vae")
