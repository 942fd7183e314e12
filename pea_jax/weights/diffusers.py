"""Loads the networks of a diffusers folder."""

import functools
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from pea_jax.errors import PeaError
from pea_jax.models.controlnet import ControlNet, ControlNetConfig
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from pea_jax.models.vae import AutoencoderKL, VAEConfig
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.torch_names import Model, PartitionRule, StoredArray, fill

STEM = "diffusion_pytorch_model"
# Autoencoders saved before diffusers 0.18 name their attention after the layers of the first implementation.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_unet(
    folder: str | pathlib.Path,
    subfolder: str = "unet",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    partition: PartitionRule | None = None,
) -> UNet2DCondition:
    """The UNet saved in `folder/subfolder`.

    Args:
      folder: a diffusers folder.
      subfolder: "" if `folder` holds the UNet itself.
      dtype: of storage and computation.
      mesh, partition: where the parameters are placed, see `torch_names.fill`.

    Raises:
      PeaError: if a file is missing or broken, or a config field or a tensor is not what this UNet has.
    """
    folder = _existing(folder, subfolder)
    config = read_config(folder, UNetConfig.from_dict)
    model = _abstract(functools.partial(UNet2DCondition, config), dtype)
    path, tensors = open_checkpoint(folder, STEM)
    return fill(model, tensors, source=str(path), mesh=mesh, partition=partition)


def load_vae(
    folder: str | pathlib.Path,
    subfolder: str = "vae",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    partition: PartitionRule | None = None,
) -> AutoencoderKL:
    """The autoencoder saved in `folder/subfolder`; arguments and errors as for `load_unet`.

    Where its config says `force_upcast` (diffusers' default), or nothing, `dtype` is not looked at: such an autoencoder
    overflows in half precision, so it is stored in float32 and computes in it.
    """
    folder = _existing(folder, subfolder)
    config = read_config(folder, VAEConfig.from_dict)
    dtype = jnp.float32 if config.force_upcast else dtype
    model = _abstract(functools.partial(AutoencoderKL, config), dtype)
    path, tensors = open_checkpoint(folder, STEM)
    return fill(model, _with_current_names(tensors), source=str(path), mesh=mesh, partition=partition)


def load_controlnet(
    folder: str | pathlib.Path,
    subfolder: str = "",
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    partition: PartitionRule | None = None,
) -> ControlNet:
    """The ControlNet saved in `folder/subfolder`; arguments and errors as for `load_unet`."""
    folder = _existing(folder, subfolder)
    config = read_config(folder, ControlNetConfig.from_dict)
    model = _abstract(functools.partial(ControlNet, config), dtype)
    path, tensors = open_checkpoint(folder, STEM)
    return fill(model, tensors, source=str(path), mesh=mesh, partition=partition)


def read_config(folder: pathlib.Path, parse: Callable[[Mapping[str, Any]], Any]) -> Any:
    """What `parse` makes of `folder/config.json`.

    Raises:
      PeaError: naming the file, if it is missing, no JSON object or refused by `parse`.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise PeaError(f"{path}: no such file; is this the folder of one model?")
    try:
        return parse(json.loads(path.read_text()))
    except (ValueError, TypeError, AttributeError) as error:
        raise PeaError(f"{path}: not a model config ({error})") from error
    except PeaError as error:
        raise PeaError(f"{path}: {error}") from error


def _existing(folder: str | pathlib.Path, subfolder: str) -> pathlib.Path:
    path = pathlib.Path(folder) / subfolder
    if not path.is_dir():
        raise PeaError(f"{path}: no such folder")
    return path


def _abstract(build: Callable[..., Model], dtype: jax.typing.DTypeLike) -> Model:
    return nnx.eval_shape(lambda: build(dtype=dtype, param_dtype=dtype))


def _with_current_names(tensors: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    pattern = re.compile(rf"(mid_block\.attentions\.\d+\.)({'|'.join(OLD_ATTENTION)})(?=\.)")
    return {pattern.sub(lambda m: m[1] + OLD_ATTENTION[m[2]], name): tensor for name, tensor in tensors.items()}
