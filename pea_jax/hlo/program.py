"""What a compiled program does and in which order, read from its optimised HLO.

The text is that of `jax.stages.Compiled.as_text()`, or of a compiler's dump, where elements of tuples may be written as
`%name#index`; the program of one chip. Only what happens in it is read, names are not: a loop counts as often as it
runs, what is fused is one operation.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

# Operations whose result is their operand, or a part or a copy of it that lives shortly.
SAME_ARRAY = ("bitcast", "get-tuple-element", "tuple", "copy-start", "copy-done", "opt-barrier")
# Operations that are one with what they call. A gathering that a SparseCore does is a `call-start`, in dumps an
# `async-start`.
WHOLE = ("fusion", "call-start", "async-start")

_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=\{?((?:%?[\w.-]+(?:, )?)+)\}?")
_ELEMENT = re.compile(r"%([\w.-]+)#(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Array:
    """`dtype[dims]`; `layout` is the order of its axes in memory, the one that varies fastest first, and where there
    are any its tiles and its memory space."""

    dtype: str
    dims: tuple[int, ...]
    layout: str

    @property
    def size(self) -> float:
        """Bytes, without padding to whole tiles."""
        bits = re.search(r"\d+", self.dtype)
        return math.prod(self.dims) * (int(bits[0]) / 8 if bits else 1)  # `pred` is a byte

    @property
    def in_memory(self) -> bool:
        """Of the chip, not in its small fast one."""
        return "S(" not in self.layout

    @property
    def minor_to_major(self) -> str:
        """Without tiles and memory space."""
        return self.layout.partition(":")[0]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; `rest` is all after the opening bracket of its operands, `within` the fusion or call
    that it is part of."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    rest: str
    times: int = 1
    within: str = ""

    @property
    def size(self) -> float:
        return sum(array.size for array in self.results)

    @property
    def operands(self) -> list[str]:
        """Names of what it works on."""
        return re.findall(r"%([\w.#-]+)", self.rest.partition("), ")[0])


def instructions(text: str, *, fused: bool = False) -> Iterator[Instruction]:
    """What runs, in order: the entry computation and what it calls; with `fused` also what is within fusions."""
    computations, entry = _computations(text)
    yield from _run(computations, entry, 1, "", fused)


@functools.lru_cache(maxsize=1)  # several questions are asked of one program, of 70 MB where it is large
def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    elements = collections.defaultdict[str, set[int]](set)
    for whole, number in _ELEMENT.findall(text):
        elements[whole].add(int(number))
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (found := _LINE.match(line)):
            name, kind, opcode, rest = found.groups()
            computations[current].append(Instruction(name, opcode, _arrays(kind), rest))
            for index in sorted(elements.get(name, ())):
                arrays = _arrays(_elements(kind)[index])
                element = Instruction(f"{name}#{index}", "get-tuple-element", arrays, f"%{name}), index={index}")
                computations[current].append(element)
    return computations, entry


def _arrays(kind: str) -> tuple[Array, ...]:
    """Those of a type, of nested tuples one after the other."""
    return tuple(
        Array(dtype, tuple(map(int, filter(None, dims.split(",")))), layout or "")
        for dtype, dims, layout in _ARRAY.findall(kind)
    )


def _elements(kind: str) -> list[str]:
    """The types of a tuple's elements."""
    depth, start, found = 0, 1, []
    for place, letter in enumerate(kind):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            found.append(kind[start:place])
            start = place + 1
    return found


def _run(
    computations: Mapping[str, list[Instruction]], name: str, times: int, within: str, fused: bool
) -> Iterator[Instruction]:
    for instruction in computations.get(name, ()):
        yield dataclasses.replace(instruction, times=times, within=within)
        if instruction.opcode == "fusion" and not fused:
            continue
        trips = _TRIPS.search(instruction.rest) if instruction.opcode == "while" else None
        for called in _CALLED.findall(instruction.rest):
            for callee in re.findall(r"[\w.-]+", called):
                inside = within or (instruction.name if instruction.opcode in WHOLE else "")
                yield from _run(computations, callee, times * (int(trips[1]) if trips else 1), inside, fused)
