"""What a compiled program keeps in a chip's memory, and how much of that it reads and writes."""

import re
from collections.abc import Iterator

from pea_jax.hlo.program import SAME_ARRAY, Array, Instruction, instructions

_OP_NAME = re.compile(r'op_name="([^"]*)"')
_NO_TRAFFIC = (*SAME_ARRAY, "parameter", "constant", "iota", "all-gather-done", "all-reduce-done", "slice-done")
# What an operation that was started earlier hands on, among others.
_PARTS = ("get-tuple-element", "all-gather-done", "call-update", "call-done", "async-update", "async-done")


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
        sizes[one.name] = sum(array.size for array in one.results if array.in_memory)
    return sum(sizes[array] for array in saved)


def gathered_at_once(text: str) -> float:
    """The most bytes of arrays that were gathered from several chips and are on one of them at the same time.

    Each counts from the start of its gathering to its last use, wherever it lies, and so do its copies in another
    order; in the order in which the program runs.
    """
    born: dict[str, tuple[int, Array]] = {}
    last: dict[str, int] = {}
    sources: dict[str, set[str]] = {}  # of a name: the gathered arrays that it stands for
    for position, (one, array) in enumerate(_with_what_is_gathered(text)):
        behind = set().union(*(sources.get(name, set()) for name in one.operands))
        last |= dict.fromkeys(behind, position)
        if array is not None:
            # Spread over several fusions, the next one takes over what the one before has written.
            last |= {name: position - 1 for name in behind if _same_shape(born[name][1], array)}
        elif behind and len(one.operands) == 1 and one.opcode in ("copy", "fusion", "transpose"):
            array = max(one.results, key=lambda result: result.size)
        elif one.opcode in (*SAME_ARRAY, *_PARTS):
            every = one.opcode not in _PARTS
            sources[one.name] = {name for name in behind if every or _is_among(born[name][1], one.results)}
        if array is not None:
            born[one.name], last[one.name], sources[one.name] = (position, array), position, {one.name}
    changes = [(start, array.size) for start, array in born.values()]
    changes += [(last[name] + 1, -array.size) for name, (_, array) in born.items()]
    alive = most = 0.0
    for _, change in sorted(changes):
        alive += change
        most = max(most, alive)
    return most


def accessed(text: str) -> float:
    """Bytes read from memory and written to it: operands and results of everything that runs."""
    sizes: dict[str, float] = {}
    total = 0.0
    for one in instructions(text):
        results = one.results[:1] if one.opcode.endswith("-start") else one.results
        sizes[one.name] = sum(array.size for array in results if array.in_memory)
        if one.opcode not in _NO_TRAFFIC or one.opcode == "copy-start":
            total += one.times * (sizes[one.name] + sum(sizes.get(name, 0.0) for name in one.operands))
    return total


def _with_what_is_gathered(text: str) -> Iterator[tuple[Instruction, Array | None]]:
    """All that runs, each with the array that it gathers or helps to gather."""
    gathered: dict[str, Array] = {}
    everything = list(instructions(text, fused=True))
    for one in everything:
        if one.opcode in ("all-gather", "all-gather-start"):
            gathered[one.within or one.name] = max(one.results, key=lambda array: array.size)
    yield from ((one, gathered.get(one.name)) for one in everything if not one.within)


def _is_among(array: Array, results: tuple[Array, ...]) -> bool:
    return any(_same_shape(array, result) for result in results)


def _same_shape(a: Array, b: Array) -> bool:
    return (a.dtype, a.dims) == (b.dtype, b.dims)
