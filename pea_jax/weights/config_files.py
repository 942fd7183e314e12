"""A model's `config.json`, and files like it."""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from pea_jax.errors import PeaError

MOST_LAYERS = 1000
# What constructors raise that are given values of a config which no model has.
WRONG = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, OSError)


def read_config(folder: pathlib.Path, parse: Callable[[Mapping[str, Any]], Any], name: str = "config.json") -> Any:
    """What `parse` makes of `folder/name`.

    Raises:
      PeaError: naming the file, if it is missing, no JSON object or refused by `parse`.
    """
    path = folder / name
    if not path.is_file():
        raise PeaError(f"{path}: no such file; is this the folder of one model?")
    try:
        fields = json.loads(path.read_bytes())
        if not isinstance(fields, dict):
            raise PeaError("not a model config (no JSON object)")
        _check_layers(fields)
        return parse(fields)
    except WRONG as error:
        raise PeaError(f"{path}: not a model config ({one_line(error)})") from error
    except PeaError as error:
        raise PeaError(f"{path}: {error}") from error


def one_line(error: BaseException) -> str:
    """Kind and message of an exception, cut to a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _check_layers(fields: Mapping[str, Any]) -> None:
    """No network has so many layers, and building them would take for ever."""
    for name, value in fields.items():
        if re.search(r"(layers|layers_per_block)$", name) and (number := _largest(value)) > MOST_LAYERS:
            raise PeaError(f"{name}={number} is more than {MOST_LAYERS}")


def _largest(value: Any) -> float:
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) else 0
