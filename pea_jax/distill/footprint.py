"""What a training step takes of one chip: memory, arithmetic, traffic. The program is compiled and never run."""

import dataclasses
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from pea_jax import chips, flops, hlo
from pea_jax.data.buckets import Size
from pea_jax.distill.abstract import AbstractRun
from pea_jax.distill.compiled import jitted

FIRST_BATCHES = (2, 4)  # a chip; the largest that fits is reckoned from these
GUESSES = 6  # at that, each compiled
CLOSE = 32  # of a batch, what the largest may be short of the smallest that does not fit
# Bytes of program that an operation of its optimised HLO takes on TPUs. Measured: 36,000 in one layer, 16,000 to 21,000
# in whole steps, whose temporary memory was 0.02 to 0.14 more than had been planned; together it was always less.
CODE = 40_000


@dataclasses.dataclass(frozen=True)
class Footprint:
    """One step with `batch` samples a chip; all of one chip, bytes unless said otherwise."""

    batch: int
    parameters: int  # frozen; adapter and optimizer
    inputs: int  # the batch
    activations: int  # kept from the student's forward pass for its backward pass, as far as names in the program tell
    temporary: int  # all else that comes and goes
    memory: int  # at the peak, with the program itself
    program: int  # of this
    kernels: bool  # whether the program was made to the end; else its size is reckoned, and `temporary` as planned
    flops: float  # of matrix products and convolutions that the model takes
    executed_flops: float  # with what the backward pass computes again
    accessed: float  # read from memory and written to it, of operands and results
    gathered: float  # received: parameters made whole, arrays moved
    gathered_at_once: float  # the most that is gathered at one time
    reduced: float  # received: sums over chips
    seconds: float  # that compiling took

    @property
    def intensity(self) -> float:
        """Operations for each byte of memory traffic."""
        return self.executed_flops / max(self.accessed, 1.0)


class TooLarge(Exception):
    """A program that the compiler refuses, with the bytes that it would take."""

    def __init__(self, memory: int):
        super().__init__(memory)
        self.memory = memory


class Compiled(NamedTuple):
    """A step as it was compiled, before its text is read; all of one chip."""

    batch: int
    program: hlo.Program
    parameters: int
    inputs: int
    operations: flops.Operations
    seconds: float


def compile_step(
    run: AbstractRun, mesh: Mesh, limit: int | None, bucket: Size, batch: int, *, folder: pathlib.Path | None = None
) -> Compiled:
    """The step of `run` on `mesh`, compiled as training does for `batch` samples a chip.

    With `folder` it is compiled until its memory is known; then the compiler is still at work, see `hlo.plan_memory`.

    Raises:
      TooLarge: it does not fit into `limit` bytes, as the compiler says.
    """
    rows, start = _with_rows(run.batches[bucket], batch * mesh.size), time.perf_counter()
    traced = jitted(run.train_step, mesh).trace(run.state, run.frozen, rows)
    try:
        lowered = traced.lower()
        program = hlo.finish(lowered) if folder is None else hlo.plan_memory(lowered, folder)
    except jax.errors.JaxRuntimeError as error:
        if sizes := chips.too_large(error):
            raise TooLarge(sizes[0]) from error
        if limit is not None and "RESOURCE_EXHAUSTED" in str(error):  # of GPUs, which say less
            raise TooLarge(limit + 1) from error
        raise
    model, executed = flops.operations(traced.jaxpr)
    return Compiled(
        batch,
        program,
        parameters=_bytes((run.state, run.frozen)),
        inputs=_bytes(rows),
        operations=flops.Operations(model / mesh.size, executed / mesh.size),
        seconds=time.perf_counter() - start,
    )


def footprint_of(step: Compiled, limit: int | None) -> Footprint:
    """What its text says.

    Raises:
      TooLarge: the sum of its parts does not fit into `limit` bytes.
    """
    program, text = step.program, step.program.text
    code = program.code if program.code is not None else CODE * sum(1 for _ in hlo.instructions(text))
    memory = program.arguments + program.temporary + code
    if limit is not None and memory > limit:
        raise TooLarge(memory)
    saved = min(int(hlo.saved_for_backward(text)), program.temporary)
    return Footprint(
        batch=step.batch,
        parameters=step.parameters,
        inputs=step.inputs,
        activations=saved,
        temporary=program.temporary - saved,
        memory=memory,
        program=code,
        kernels=program.code is not None,
        flops=step.operations.model,
        executed_flops=step.operations.executed,
        accessed=hlo.accessed(text),
        **hlo.traffic(text),
        gathered_at_once=hlo.gathered_at_once(text),
        seconds=step.seconds,
    )


def largest(measure: Callable[[int], Footprint], limit: int) -> Footprint | None:
    """The step with the largest batch a chip that fits; None if not even one sample does.

    Memory is nearly linear in the batch: two small ones are compiled, then what the line through two of them says fits;
    where the line has been wrong twice on the same side, what lies in the middle.

    Args:
      measure: compiles a batch; raises `TooLarge`.
      limit: bytes of a chip.
    """
    fitting: dict[int, Footprint] = {}
    sizes: dict[int, int] = {}

    def look(batch: int) -> None:
        try:
            fitting[batch] = measure(batch)
            sizes[batch] = fitting[batch].memory
        except TooLarge as error:
            sizes[batch] = error.memory

    for batch in FIRST_BATCHES:
        look(batch)
    for _ in range(GUESSES):
        guess = _guess(sizes, limit)
        if guess is None:
            break
        look(guess)
    return fitting[max(fitting)] if fitting else None


def _guess(sizes: dict[int, int], limit: int) -> int | None:
    """What to compile next, given the memory of batches in the order in which they were; None when it is close."""
    fits = max((batch for batch, size in sizes.items() if size <= limit), default=0)
    too_large = min((batch for batch, size in sizes.items() if size > limit), default=None)
    line = on_the_line(sizes, limit)
    if too_large is None:
        return line if line > fits else None
    if too_large - fits <= max(1, fits // CLOSE):
        return None
    guessed = [size > limit for size in sizes.values()][len(FIRST_BATCHES) :]
    if any(one == other for one, other in itertools.pairwise(guessed)):
        return (fits + too_large) // 2
    # Memory is not quite linear: what missed by a hair would miss again with one sample less.
    return max(fits + 1, min(line, too_large - max(1, too_large // CLOSE)))


def on_the_line(sizes: Mapping[int, float], limit: float) -> int:
    """What fits into `limit` bytes by the line through the two batches whose memory, `sizes`, is nearest to it."""
    (a, size_a), (b, size_b) = sorted(sizes.items(), key=lambda item: abs(item[1] - limit))[:2]
    each = (size_b - size_a) / (b - a)
    return math.floor(b + (limit - size_b) / each) if each > 0 else max(a, b)


def _with_rows(batch: Any, rows: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=x.sharding), batch)


def _bytes(tree: Any) -> int:
    """That lie on each chip."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
