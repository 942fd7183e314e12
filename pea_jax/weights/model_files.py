"""A network's config and tensors: in a diffusers folder, on the Hub, or in a checkpoint of one file."""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from pea_jax.errors import PeaError
from pea_jax.weights import single_file
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.locations import locate
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.torch_names import Model, PartitionRule, fill

STEM = "diffusion_pytorch_model"
MOST_LAYERS = 1000
# What constructors raise that are given values of a config which no model has.
_WRONG = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, OSError)


class Opened(NamedTuple):
    """A network in its files: the parsed config, the tensors by diffusers' names, and where each comes from."""

    config: Any
    config_source: str
    tensors: dict[str, StoredArray]
    source: str


def open_model(
    location: str | pathlib.Path,
    subfolder: str,
    parse: Callable[[Mapping[str, Any]], Any],
    config: str | pathlib.Path | None = None,
) -> Opened:
    """The network in `location/subfolder`, or the component `subfolder` of a checkpoint in one file.

    Args:
      location: a path, or OWNER/NAME of a model on the Hugging Face Hub.
      parse: the parsed form of `config.json`.
      config: for a checkpoint in one file, the folder with its config.json files; by default that of its base model.

    Raises:
      PeaError: if a file is missing or broken, or a config field is not what the network can have.
    """
    location = locate(location, subfolder)
    if location.is_file():
        return open_single_file(location, subfolder, parse, config)
    folder = location / subfolder
    if not folder.is_dir():
        raise PeaError(f"{folder}: no such folder")
    parsed = read_config(folder, parse)
    path, tensors = open_checkpoint(folder, STEM)
    return Opened(parsed, str(folder / "config.json"), tensors, str(path))


def filled(
    network: Callable[..., Model],
    opened: Opened,
    dtype: jax.typing.DTypeLike,
    mesh: Mesh | None,
    partition: PartitionRule | None,
) -> Model:
    """The network of `opened`, its parameters placed; arguments as for `load_unet`.

    Raises:
      PeaError: the config describes no network, or the tensors are those of another one.
    """
    try:
        model = nnx.eval_shape(lambda: network(opened.config, dtype=dtype, param_dtype=dtype))
    except _WRONG as error:
        raise PeaError(f"{opened.config_source}: no network can be built so ({_one_line(error)})") from error
    return fill(model, opened.tensors, source=opened.source, mesh=mesh, partition=partition)


def read_config(folder: pathlib.Path, parse: Callable[[Mapping[str, Any]], Any]) -> Any:
    """What `parse` makes of `folder/config.json`.

    Raises:
      PeaError: naming the file, if it is missing, no JSON object or refused by `parse`.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise PeaError(f"{path}: no such file; is this the folder of one model?")
    try:
        fields = json.loads(path.read_text())
        if not isinstance(fields, dict):
            raise PeaError("not a model config (no JSON object)")
        _check_layers(fields)
        return parse(fields)
    except _WRONG as error:
        raise PeaError(f"{path}: not a model config ({_one_line(error)})") from error
    except PeaError as error:
        raise PeaError(f"{path}: {error}") from error


def open_single_file(
    path: pathlib.Path,
    component: str,
    parse: Callable[[Mapping[str, Any]], Any],
    config: str | pathlib.Path | None,
) -> Opened:
    """One component of a checkpoint in one file; arguments and errors as for `open_model`."""
    tensors = single_file.open_tensors(path, component)
    if config is None:
        fields = single_file.base_config(path, tensors, component)
        parsed, config_source = parse(fields), str(path)
    else:
        folder = locate(config, component) / component
        fields, parsed, config_source = read_config(folder, dict), read_config(folder, parse), str(folder)
    return Opened(parsed, config_source, single_file.convert(path, tensors, component, fields), str(path))


def _check_layers(fields: Mapping[str, Any]) -> None:
    """No network has so many layers, and building them would take for ever."""
    for name, value in fields.items():
        if re.search(r"(layers|layers_per_block)$", name) and (number := _largest(value)) > MOST_LAYERS:
            raise PeaError(f"{name}={number} is more than {MOST_LAYERS}")


def _largest(value: Any) -> float:
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) else 0


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
