"""Loads the networks of a diffusers folder, of the Hub, or of a checkpoint in one file."""

import pathlib
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pea_jax.models.controlnet import ControlNet, ControlNetConfig
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from pea_jax.models.vae import AutoencoderKL, VAEConfig
from pea_jax.weights.model_files import filled, open_model
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.torch_names import PartitionRule

# Autoencoders saved before diffusers 0.18 name their attention after the layers of the first implementation.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_unet(
    folder: str | pathlib.Path,
    subfolder: str = "unet",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    partition: PartitionRule | None = None,
    config: str | pathlib.Path | None = None,
) -> UNet2DCondition:
    """The UNet saved in `folder/subfolder`.

    Args:
      folder: a diffusers folder, OWNER/NAME of one on the Hugging Face Hub, or a checkpoint in one file.
      subfolder: "" if `folder` holds the UNet itself.
      dtype: of storage and computation.
      mesh, partition: where the parameters are placed, see `torch_names.fill`.
      config: for a checkpoint in one file that is no fine-tune of SD 1.5, SD 2.1 or SDXL, a diffusers folder with the
        config.json files that fit it.

    Raises:
      PeaError: if a file is missing or broken, or a config field or a tensor is not what this UNet has.
    """
    opened = open_model(folder, subfolder, UNetConfig.from_dict, config)
    return filled(UNet2DCondition, opened, dtype, mesh, partition)


def load_vae(
    folder: str | pathlib.Path,
    subfolder: str = "vae",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    partition: PartitionRule | None = None,
    config: str | pathlib.Path | None = None,
) -> AutoencoderKL:
    """The autoencoder saved in `folder/subfolder`; arguments and errors as for `load_unet`.

    Where its config says `force_upcast` (diffusers' default), or nothing, it overflows in float16: asked for in that,
    it is stored in float32 and computes in it. bfloat16 has float32's range, and stays, as in diffusers.
    """
    opened = open_model(folder, subfolder, VAEConfig.from_dict, config)
    dtype = jnp.float32 if opened.config.force_upcast and jnp.dtype(dtype) == jnp.float16 else dtype
    opened = opened._replace(tensors=_with_current_names(opened.tensors))
    return filled(AutoencoderKL, opened, dtype, mesh, partition)


def load_controlnet(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    partition: PartitionRule | None = None,
) -> ControlNet:
    """The ControlNet saved in `folder/subfolder`; arguments and errors as for `load_unet`."""
    opened = open_model(folder, subfolder, ControlNetConfig.from_dict)
    return filled(ControlNet, opened, dtype, mesh, partition)


def _with_current_names(tensors: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    pattern = re.compile(rf"(mid_block\.attentions\.\d+\.)({'|'.join(OLD_ATTENTION)})(?=\.)")
    return {pattern.sub(lambda m: m[1] + OLD_ATTENTION[m[2]], name): tensor for name, tensor in tensors.items()}
