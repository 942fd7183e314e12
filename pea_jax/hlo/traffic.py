"""What a compiled program moves between chips."""

import math
import re

from pea_jax.hlo.program import Instruction, instructions

GATHERED = ("all-gather", "all-to-all", "collective-permute", "collective-broadcast", "ragged-all-to-all")
REDUCED = ("all-reduce", "reduce-scatter")


_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\]|mesh\[([^\]]*)\][^{]*\{([^}]*)\})")
_AXIS = re.compile(r"'(\w+)'(?:=(\d+)|:\(\d+\)(\d+))?")
_CHANNEL = re.compile(r"channel_id=(\d+)")


def traffic(text: str) -> dict[str, float]:
    """Bytes that reach one chip from others in one run of the program: `gathered` (parameters and arrays that are made
    whole, or moved) and `reduced` (sums over chips).

    TPUs spread a collective over the fusions that run beside it, each a part of it that looks like the whole; the
    channel tells what belongs together.
    """
    received = {"gathered": 0.0, "reduced": 0.0}
    spread: set[str] = set()
    for instruction in instructions(text, fused=True):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in GATHERED + REDUCED:
            continue
        channel = _CHANNEL.search(instruction.rest)
        if instruction.within and channel:
            if channel[1] in spread:
                continue
            spread.add(channel[1])
        received["gathered" if kind in GATHERED else "reduced"] += _received(instruction, kind)
    return received


def _received(instruction: Instruction, kind: str) -> float:
    """Around the usual ring: n - 1 of n parts reach each of n chips, of sums once to be added and once as result."""
    chips = _group_size(instruction.rest)
    share, size = (chips - 1) / chips, instruction.size * instruction.times
    if kind == "collective-permute":
        return size / (2 if instruction.opcode.endswith("-start") else 1)
    if kind == "all-reduce":
        return 2 * share * size
    if kind == "reduce-scatter":
        return (chips - 1) * size  # its result is one part
    if instruction.opcode.endswith("-start"):  # operands and results, of which the former are one part
        size *= chips / (chips + 1)
    return share * size


def _group_size(rest: str) -> int:
    """Chips that take part together: listed, counted, or the axes of a mesh."""
    found = _GROUPS.search(rest)
    if found is None:
        return 2
    if found[1] or found[2]:
        return len(found[1].split(",")) if found[1] else int(found[2])
    sizes = {axis: size for axis, size, _ in _AXIS.findall(found[3])}
    return math.prod(int(part or sizes[axis]) for axis, _, part in _AXIS.findall(found[4]))
