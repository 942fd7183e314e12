"""Where a model that a config or an adapter names lies on this machine."""

import pathlib
from typing import NamedTuple

from pea_jax.errors import PeaError
from pea_jax.weights import hub
from pea_jax.weights.abstract import values_left_out

SEPARATOR = " + "  # between the names of several models
PROJECT = pathlib.Path(__file__).resolve().parents[2]


class BaseModel(NamedTuple):
    """Where a base model lies: `weights` in a diffusers folder or in one file; `configs`, the tokenizers and the
    scheduler in a folder, the same one unless `weights` is a file."""

    weights: pathlib.Path
    configs: pathlib.Path


def locate_base(name: str | pathlib.Path, config: str | pathlib.Path | None = None) -> BaseModel:
    """A base model, in a folder or in one file.

    Args:
      name: as for `locate`.
      config: where the configs, tokenizers and scheduler of a checkpoint in one file are: a diffusers folder, or
        OWNER/NAME on the Hub, of which the weights are not downloaded. Empty or None for a folder.

    Raises:
      PeaError: one of the two is not to be found, or `config` is missing, or has nothing to add.
    """
    weights = locate(name)
    if not weights.is_file():
        if config:
            raise PeaError(f"{name}: a folder, with configs of its own; leave base_model_config ({config}) empty")
        return BaseModel(weights, weights)
    if not config:
        raise PeaError(
            f"{name}: a checkpoint in one file holds neither tokenizers nor scheduler; set base_model_config to a "
            "diffusers folder or Hub id of its base model, e.g. stabilityai/stable-diffusion-xl-base-1.0"
        )
    if (configs := locate(config, with_weights=False)).is_file():
        raise PeaError(f"base_model_config={config}: a file; it must be a diffusers folder or Hub id")
    return BaseModel(weights, configs)


def locate(name: str | pathlib.Path, subfolder: str = "", *, with_weights: bool = True) -> pathlib.Path:
    """A model's folder or file: as the user wrote it, within the project's own tree (`assets/...`), or on the Hub.

    Args:
      name: a path, or OWNER/NAME of a model on the Hugging Face Hub, which is downloaded into its cache.
      subfolder: what is to be downloaded if not all of a pipeline; not part of the result.
      with_weights: whether the weights are downloaded, or configs and tokenizers alone, as within `without_values`.

    Raises:
      PeaError: it is in none of the three places.
    """
    text = str(name)
    if (path := _here(name)) is not None:
        return path
    if hub.REPO_ID.fullmatch(text):
        return hub.snapshot(text, subfolder, with_weights=with_weights and not values_left_out())
    raise PeaError(
        f"{text!r}: no such model folder; give the path of a folder in diffusers or transformers layout, "
        "or OWNER/NAME of a model on the Hugging Face Hub"
    )


def published_file(path: str | pathlib.Path, what: str, command: str, size: str) -> pathlib.Path:
    """A file of one model that everybody uses.

    Raises:
      PeaError: it is missing, with the command that downloads it.
    """
    if not (found := pathlib.Path(path).expanduser()).is_file():
        raise PeaError(f"{path}: no such file; {what} is to be had with `{command}` ({size})")
    return found


def is_here(name: str | pathlib.Path) -> bool:
    """Whether it is a path on this machine, so that its name says nothing elsewhere."""
    return _here(name) is not None


def _here(name: str | pathlib.Path) -> pathlib.Path | None:
    places = (pathlib.Path(name).expanduser(), PROJECT / name)
    return next((path for path in places if str(name) and path.exists()), None)
