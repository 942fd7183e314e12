"""A network's config and tensors: in a diffusers folder, on the Hub, or in a checkpoint of one file."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from pea_jax.errors import PeaError
from pea_jax.models.layers import abstract
from pea_jax.weights import single_file
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.config_files import WRONG, one_line, read_config
from pea_jax.weights.locations import locate
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.torch_names import Model, PartitionRule, fill

STEM = "diffusion_pytorch_model"


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
        model = abstract(lambda: network(opened.config, dtype=dtype, param_dtype=dtype))
    except WRONG as error:
        raise PeaError(f"{opened.config_source}: no network can be built so ({one_line(error)})") from error
    return fill(model, opened.tensors, source=opened.source, mesh=mesh, partition=partition)


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
