"""Which axis of each frozen parameter is split over `fsdp`: ordered rules that must cover every parameter."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pea_jax.errors import PeaError

SMALLEST_SHARDED = 2**20  # bytes; gathering a smaller array costs more than keeping it everywhere
LARGEST_WHOLE = 4 * 2**20  # bytes of an array that is whole because `fsdp` divides none of its axes


@dataclasses.dataclass(frozen=True)
class Rule:
    """Parameters whose dotted name ends in `pattern`; the first of `axes` that `fsdp` divides is split.

    Without `axes` they are whole on every device, however large.
    """

    pattern: str
    axes: tuple[int, ...] = ()


# The first that fits decides. Not the last axis where it can be another: accelerators keep it in whole tiles of 128,
# and fill up what is shorter.
RULES = (
    Rule("bias|scale"),
    Rule("embedding", (-1, -2)),  # tables: the number of tokens is seldom divisible
    Rule("weight", (0, 1)),  # matrices, as PyTorch has them
    Rule("kernel", (-2, -1)),
)


def rule_of(name: str, rules: Sequence[Rule] = RULES) -> Rule:
    """The rule for a dotted name.

    Raises:
      PeaError: there is none.
    """
    for rule in rules:
        if re.search(rf"(^|\.)({rule.pattern})$", name):
            return rule
    raise PeaError(f"{name}: no rule says how this parameter is placed; add one to RULES in pea_jax/partition.py")


def frozen_sharding(
    mesh: Mesh, name: str, shape: tuple[int, ...], dtype: Any, rules: Sequence[Rule] = RULES
) -> NamedSharding:
    """Where a frozen parameter lies; under 1 MB whole on every device, whatever its rule says.

    Raises:
      PeaError: no rule covers it, or it has more than 4 MB and `fsdp` divides none of the axes that its rule names.
    """
    rule, size = rule_of(name, rules), mesh.shape["fsdp"]
    length = math.prod(shape) * np.dtype(dtype).itemsize
    whole = NamedSharding(mesh, PartitionSpec())
    if size == 1 or not rule.axes or length < SMALLEST_SHARDED:
        return whole
    for axis in rule.axes:
        if shape[axis] % size == 0:
            return NamedSharding(mesh, PartitionSpec(*[None] * (axis % len(shape)), "fsdp"))
    if length <= LARGEST_WHOLE:
        return whole
    raise PeaError(
        f"{name} {list(shape)}: config.mesh.fsdp={size} divides none of its axes {list(rule.axes)}, and it is too "
        "large to be whole on every device; choose another fsdp"
    )


def shard_frozen(tree: Any, mesh: Mesh) -> Any:
    """Frozen parameters, each placed by `frozen_sharding`."""
    leaves = [jax.device_put(x, frozen_sharding(mesh, name, x.shape, x.dtype)) for name, x in named_leaves(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of a tree with their dotted names; the numbers of a weight in 8 bits by the name of the weight."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield re.sub(r"\.value(\.qvalue)?$", "", jax.tree_util.keystr(path, simple=True, separator=".")), leaf


@dataclasses.dataclass
class Placed:
    """What one rule took: arrays, their bytes, and how many of those lie on each chip."""

    arrays: int = 0
    size: int = 0
    per_chip: int = 0


def placements(tree: Any) -> dict[tuple[str, str], Placed]:
    """By rule and by axis ("whole" where none is split), what lies where; the arrays may be abstract."""
    found: dict[tuple[str, str], Placed] = collections.defaultdict(Placed)
    for name, leaf in named_leaves(tree):
        axis = next((i for i, part in enumerate(leaf.sharding.spec) if part), None)
        where = "whole" if axis is None else f"axis {axis - leaf.ndim}"
        group, itemsize = found[rule_of(name).pattern, where], np.dtype(leaf.dtype).itemsize
        group.arrays += 1
        group.size += leaf.size * itemsize
        group.per_chip += math.prod(leaf.sharding.shard_shape(leaf.shape)) * itemsize
    return dict(found)


def summary(tree: Any, mesh: Mesh) -> str:
    """A line on all frozen parameters of a tree, and one on each rule."""
    found = placements(tree)
    whole = sum(group.size for (_, where), group in found.items() if where == "whole")
    total, chip = (sum(getattr(group, field) for group in found.values()) for field in ("size", "per_chip"))
    lines = [
        f"frozen parameters over fsdp={mesh.shape['fsdp']}: {_mega(total - whole)} sharded, {_mega(whole)} replicated; "
        f"{_mega(chip)} a chip"
    ]
    for (pattern, where), group in sorted(found.items()):
        size = f"{_mega(group.size)}, {_mega(group.per_chip)} a chip"
        lines.append(f"  {pattern}: {group.arrays} {'whole' if where == 'whole' else f'split on {where}'}, {size}")
    return "\n".join(lines)


def _mega(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
