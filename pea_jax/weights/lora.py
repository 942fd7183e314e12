"""Merges LoRA files into frozen networks: `W + scale * alpha / rank * up @ down` (arXiv 2106.09685)."""

import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.weights.abstract import values_left_out
from pea_jax.weights.lora_layouts import COMPONENTS, Layer, component_of, open_layers, read_layers
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.torch_names import torch_axes, torch_name


def lora_components(path: str | pathlib.Path) -> list[str]:
    """The networks that a LoRA file has layers for, of `unet`, `text_encoder`, `text_encoder_2`.

    Raises:
      PeaError: as for `merge_lora`.
    """
    found = {component_of(key) for key in open_layers(pathlib.Path(path))}
    return [component for component in COMPONENTS if component in found]


def merge_lora(model: nnx.Module, path: str | pathlib.Path, *, scale: float = 1.0, component: str = "unet") -> None:
    """Adds a LoRA to the parameters of `model`, in place; nothing is changed if it does not fit.

    Args:
      model: a UNet, or a CLIP text encoder.
      path: safetensors, or `.bin`; kohya's, diffusers' or peft's names, LCM-LoRA and LoRA of convolutions among them.
        Beside what peft itself has saved, `adapter_config.json` must lie.
      scale: the strength that pipelines let one choose.
      component: which network of the pipeline `model` is: `unet`, `text_encoder` or `text_encoder_2`. A file may be
        meant for several (`lora_components` tells): merge it into each.

    Within `without_values` nothing is added: whether it fits is all that can be told.

    Raises:
      PeaError: the file is broken, is of another method, has nothing for `component`, has numbers that are not finite,
        or keys or shapes that `model` does not have, which are all listed.
    """
    path = pathlib.Path(path)
    if component not in COMPONENTS:
        raise PeaError(f"component={component!r} must be one of {', '.join(COMPONENTS)}")
    layers = read_layers(path, component, _layers_per_block(model))
    if not layers:
        others = ", ".join(lora_components(path))
        found = f"only for {others}" if others else "it is empty"
        raise PeaError(f"{path}: nothing in it for the {component} ({found})")
    parameters = {torch_name(p): (p, v) for p, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    targets = {f"{module.removeprefix('text_model.')}.weight": layer for module, layer in layers.items()}
    if problems := _problems(parameters, targets):
        raise PeaError(f"{path} does not fit the {component}: {'; '.join(problems)}")
    if values_left_out():
        return
    changed = []
    for name, layer in targets.items():
        axes_path, variable = parameters[name]
        if not np.isfinite(change := _change(layer, scale)).all():
            raise PeaError(f"{path}: {name}: numbers that are not finite; its training failed, or the file is broken")
        changed.append((axes_path, variable.replace(_merged(variable[...], axes_path, change))))
    nnx.update(model, nnx.from_flat_state(changed))


def _layers_per_block(model: Any) -> int:
    return len(model.down_blocks[0].resnets) if hasattr(model, "down_blocks") else 0


def _problems(parameters: dict[str, tuple[Any, Any]], layers: dict[str, Layer]) -> list[str]:
    problems = []
    if strangers := sorted(layers.keys() - parameters.keys()):
        problems.append(f"{len(strangers)} layers that it does not have ({', '.join(strangers[:8])})")
    for name in sorted(layers.keys() & parameters.keys()):
        path, variable = parameters[name]
        wanted = tuple(variable.shape[axis] for axis in np.argsort(torch_axes(path, variable.ndim)))
        down, up = (tuple(factor.shape) for factor in layers[name][:2])
        if not all(jnp.issubdtype(factor.dtype, jnp.floating) for factor in layers[name][:2]):
            problems.append(f"{name}: factors of dtype {layers[name].down.dtype} and {layers[name].up.dtype}")
        elif not _is_product(down, up, wanted):
            problems.append(f"{name}: factors {list(down)} and {list(up)} do not multiply to {list(wanted)}")
    return problems[:8]


def _is_product(down: tuple[int, ...], up: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if min(len(down), len(up), len(wanted)) < 2 or down[0] != up[1] or down[0] == 0 or math.prod(up[2:]) != 1:
        return False
    kernel = wanted[2:] if math.prod(wanted[2:]) != 1 else ()
    return (up[0], down[1]) == wanted[:2] and (down[2:] == kernel or not kernel and math.prod(down[2:]) == 1)


def _change(layer: Layer, scale: float) -> np.ndarray:
    """`[out, in * ...]` of PyTorch's layout."""
    down, up = _read(layer.down), _read(layer.up)
    rank = down.shape[0]
    factor = scale * (rank if layer.alpha is None else layer.alpha) / rank
    with np.errstate(over="ignore", invalid="ignore"):  # who merges it looks
        return factor * (up.reshape(-1, rank) @ down.reshape(rank, -1))


def _merged(weight: jax.Array, path: tuple[Any, ...], change: np.ndarray) -> jax.Array:
    """`weight`, where it lies, plus `change`."""
    axes = torch_axes(path, weight.ndim)
    torch_shape = tuple(weight.shape[axis] for axis in np.argsort(axes))
    change = change.reshape(torch_shape).transpose(axes)
    placed = jax.make_array_from_callback(weight.shape, weight.sharding, lambda index: change[index])
    return _add(weight, placed)


@jax.jit
def _add(weight: jax.Array, change: jax.Array) -> jax.Array:
    return (weight.astype(jnp.float32) + change).astype(weight.dtype)


def _read(tensor: StoredArray) -> np.ndarray:
    return np.asarray(tensor[(slice(None),) * len(tensor.shape)], np.float32)
