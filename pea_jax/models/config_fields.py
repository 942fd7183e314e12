"""Reads the fields of a diffusers `config.json` and refuses what the models here do not do."""

from collections.abc import Iterable, Mapping
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


def check_choice(name: str, values: Iterable[Any], choices: tuple) -> None:
    """Each of `values` is one of `choices`.

    Raises:
      PeaError: naming the field and the value that is not.
    """
    for value in values:
        if value not in choices:
            raise PeaError(f"{name}: {value!r} is not supported (only {' or '.join(map(repr, choices))})")


def check_whole(fields: Mapping[str, Any], names: Iterable[str], *, least: int = 1, lists: bool = False) -> None:
    """Each field of `names` is a whole number, with `lists` also a list of one or more, none below `least`.

    Raises:
      PeaError: naming the field that is not.
    """
    for name in names:
        value = fields[name]
        entries = value if lists and isinstance(value, list | tuple) else (value,)
        if not entries or any(type(entry) is not int or entry < least for entry in entries):
            kind = "whole numbers" if lists else "a whole number"
            raise PeaError(f"{name}={value!r} must be {kind}, at least {least}")


def check_numbers(fields: Mapping[str, Any], names: Iterable[str]) -> None:
    """Each field of `names` is a number.

    Raises:
      PeaError: naming the field that is not.
    """
    for name in names:
        if isinstance(fields[name], bool) or not isinstance(fields[name], int | float):
            raise PeaError(f"{name}={fields[name]!r} must be a number")


def check_widths(fields: Mapping[str, Any]) -> None:
    """`block_out_channels` is a list of widths that the group norms can split.

    Raises:
      PeaError: it is not, or `norm_num_groups` does not divide one of them.
    """
    groups, widths = fields["norm_num_groups"], fields["block_out_channels"]
    if not isinstance(widths, list | tuple):
        raise PeaError(f"block_out_channels={widths!r} must be a list, with one width for each block")
    check_whole(fields, ["block_out_channels"], lists=True)
    check_whole(fields, ["norm_num_groups"])
    if any(width % groups for width in widths):
        raise PeaError(f"norm_num_groups={groups} does not divide every one of block_out_channels={list(widths)}")
