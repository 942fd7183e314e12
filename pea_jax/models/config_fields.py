"""Reads the fields of a diffusers `config.json` and refuses what the models here do not do."""

from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError


def read_fields(
    config: Mapping[str, Any], *, defaults: Mapping[str, Any], supported: Mapping[str, tuple]
) -> dict[str, Any]:
    """The fields named in `defaults`, with the default where `config` has none.

    `supported` lists the accepted values of the fields that are not read (the first is the default of diffusers).

    Raises:
      PeaError: naming every field with another value, and every field that is not known at all.
    """
    public = {name: value for name, value in config.items() if not name.startswith("_")}
    problems = [
        f"{name}={public[name]!r} is not supported (only {' or '.join(map(repr, values))})"
        for name, values in supported.items()
        if name in public and public[name] not in values
    ]
    problems += [f"field {name!r} is not known" for name in sorted(public.keys() - defaults.keys() - supported.keys())]
    if problems:
        raise PeaError("; ".join(problems))
    return {name: public.get(name, default) for name, default in defaults.items()}


def per_block(name: str, value: Any, num_blocks: int) -> tuple:
    """`value` for each block: repeated if it is one number, else checked to have one entry a block."""
    if not isinstance(value, list | tuple):
        return (value,) * num_blocks
    if len(value) != num_blocks:
        raise PeaError(f"{name}={value!r} must have one entry for each of the {num_blocks} blocks")
    return tuple(value)
