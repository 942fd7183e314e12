"""What a compiled program moves between chips and keeps in memory, read from its optimised HLO.

The text is that of `jax.stages.Compiled.as_text()`, the program of one chip. Only what happens in it is read, names are
not: a loop counts as often as it runs, what is fused is one operation.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

GATHERED = ("all-gather", "all-to-all", "collective-permute", "collective-broadcast", "ragged-all-to-all")
REDUCED = ("all-reduce", "reduce-scatter")

# Operations whose result is their operand, or a part or a copy of it that lives shortly.
SAME_ARRAY = ("bitcast", "get-tuple-element", "tuple", "copy-start", "copy-done", "opt-barrier")

_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=\{?((?:%?[\w.-]+(?:, )?)+)\}?")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])")


@dataclasses.dataclass(frozen=True)
class Array:
    """`dtype[dims]`, and the order of its axes in memory, the last one varying fastest last."""

    dtype: str
    dims: tuple[int, ...]
    layout: str

    @property
    def size(self) -> float:
        """Bytes, without padding to whole tiles."""
        bits = re.search(r"\d+", self.dtype)
        return math.prod(self.dims) * (int(bits[0]) / 8 if bits else 1)  # `pred` is a byte

    @property
    def minor_to_major(self) -> str:
        """Without tiles and memory space."""
        return self.layout.partition(":")[0]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; `rest` is all after the opening bracket of its operands."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    rest: str
    times: int = 1

    @property
    def size(self) -> float:
        return sum(array.size for array in self.results)

    @property
    def operands(self) -> list[str]:
        """Names of what it works on."""
        return re.findall(r"%([\w.-]+)", self.rest.partition("), ")[0])


def instructions(text: str, *, fused: bool = False) -> Iterator[Instruction]:
    """What runs, in order: the entry computation and what it calls; with `fused` also what is within fusions."""
    computations, entry = _computations(text)
    yield from _run(computations, entry, 1, fused)


def traffic(text: str) -> dict[str, float]:
    """Bytes that reach one chip from others in one run of the program: `gathered` (parameters and arrays that are made
    whole, or moved) and `reduced` (sums over chips)."""
    received = {"gathered": 0.0, "reduced": 0.0}
    for instruction in instructions(text, fused=True):
        kind = instruction.opcode.removesuffix("-start")
        if kind in GATHERED:
            received["gathered"] += _received(instruction, kind)
        elif kind in REDUCED:
            received["reduced"] += _received(instruction, kind)
    return received


def saved_for_backward(text: str) -> float:
    """Bytes that the forward pass of what is differentiated leaves for its backward pass, parameters not counted.

    JAX names operations of a backward pass `transpose(...)`; what has no name goes with what it works on.
    """
    sources: dict[str, set[str]] = {}  # of a name: the arrays in memory that it stands for
    sizes: dict[str, float] = {}
    backward: set[str] = set()
    saved: set[str] = set()
    for one in instructions(text):
        behind = set().union(*(sources.get(name, set()) for name in one.operands))
        if one.opcode in SAME_ARRAY:
            sources[one.name] = behind
            continue
        name = _OP_NAME.search(one.rest)
        if "transpose(" in name[1] if name else not backward.isdisjoint(behind):
            backward.add(one.name)
            saved |= {array for array in behind if array not in backward}
        sources[one.name] = set() if one.opcode in ("parameter", "constant", "iota") else {one.name}
        sizes[one.name] = sum(array.size for array in one.results if "S(1)" not in array.layout)
    return sum(sizes[array] for array in saved)


def _received(instruction: Instruction, kind: str) -> float:
    """Around the usual ring: n - 1 of n parts reach each of n chips, of sums once to be added and once as result."""
    found = _GROUPS.search(instruction.rest)
    chips = 2 if found is None else len(found[1].split(",")) if found[1] else int(found[2])
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


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (found := _LINE.match(line)):
            results = tuple(
                Array(dtype, tuple(map(int, filter(None, dims.split(",")))), layout or "")
                for dtype, dims, layout in _ARRAY.findall(found[2])
            )
            computations[current].append(Instruction(found[1], found[3], results, found[4]))
    return computations, entry


def _run(computations: Mapping[str, list[Instruction]], name: str, times: int, fused: bool) -> Iterator[Instruction]:
    for instruction in computations.get(name, ()):
        yield dataclasses.replace(instruction, times=times)
        if instruction.opcode == "fusion" and not fused:
            continue
        trips = _TRIPS.search(instruction.rest) if instruction.opcode == "while" else None
        for called in _CALLED.findall(instruction.rest):
            for callee in re.findall(r"[\w.-]+", called):
                yield from _run(computations, callee, times * (int(trips[1]) if trips else 1), fused)
