"""Reads the fields of a `config.json` of diffusers or transformers and refuses what the models here do not do."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pea_jax.errors import PeaError

MOST = 10**7  # no network has so large an axis, and array libraries take no axis of any length


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
    """Each field of `names` is a whole number, with `lists` also a list of one or more, from `least` to `MOST`.

    Raises:
      PeaError: naming the field that is not.
    """
    for name in names:
        value = fields[name]
        entries = value if lists and isinstance(value, list | tuple) else (value,)
        if not entries or any(type(entry) is not int or not least <= entry <= MOST for entry in entries):
            kind = "whole numbers" if lists else "a whole number"
            raise PeaError(f"{name}={value!r} must be {kind} from {least} to {MOST}")


def check_numbers(fields: Mapping[str, Any], names: Iterable[str], *, positive: bool = False) -> None:
    """Each field of `names` is a finite number, with `positive` one above 0.

    Raises:
      PeaError: naming the field that is not.
    """
    for name in names:
        value = fields[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise PeaError(f"{name}={value!r} must be a finite number")
        if positive and value <= 0:
            raise PeaError(f"{name}={value!r} must be above 0")


def check_kinds(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Each field is of the kind of its default: a whole number, at least 1; a number above 0; or true or false.

    Raises:
      PeaError: naming the field that is not.
    """
    for name, default in defaults.items():
        if isinstance(default, bool):
            check_choice(name, [fields[name]], (False, True))
        elif isinstance(default, int):
            check_whole(fields, [name])
        elif isinstance(default, float):
            check_numbers(fields, [name], positive=True)


def check_heads(fields: Mapping[str, Any]) -> None:
    """`hidden_size` can be split over `num_attention_heads`.

    Raises:
      PeaError: it cannot.
    """
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    if width % heads:
        raise PeaError(f"hidden_size={width} must be a multiple of num_attention_heads={heads}")


def check_lists(fields: Mapping[str, Any], names: Iterable[str]) -> None:
    """Each field of `names` is a list.

    Raises:
      PeaError: naming the field that is not.
    """
    for name in names:
        if not isinstance(fields[name], list | tuple):
            raise PeaError(f"{name}={fields[name]!r} must be a list, with one entry for each block")


def check_widths(fields: Mapping[str, Any]) -> None:
    """`block_out_channels` is a list of widths that the group norms can split.

    Raises:
      PeaError: it is not, or `norm_num_groups` does not divide one of them.
    """
    groups, widths = fields["norm_num_groups"], fields["block_out_channels"]
    check_lists(fields, ["block_out_channels"])
    check_whole(fields, ["block_out_channels"], lists=True)
    check_whole(fields, ["norm_num_groups"])
    if any(width % groups for width in widths):
        raise PeaError(f"norm_num_groups={groups} does not divide every one of block_out_channels={list(widths)}")
