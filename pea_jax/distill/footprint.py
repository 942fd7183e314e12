"""What a training step takes of one chip: memory, arithmetic, traffic. The program is compiled and never run."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pea_jax import chips, flops, hlo
from pea_jax.data.buckets import Size
from pea_jax.distill.abstract import AbstractRun
from pea_jax.mesh import replicated

FIRST_BATCHES = (2, 4)  # a chip; the largest that fits is reckoned from these
GUESSES = 3  # at that, each compiled


@dataclasses.dataclass(frozen=True)
class Footprint:
    """One step with `batch` samples a chip; all of one chip, bytes unless said otherwise."""

    batch: int
    parameters: int  # frozen; adapter and optimizer
    inputs: int  # the batch
    activations: int  # kept from the student's forward pass for its backward pass
    temporary: int  # all else that comes and goes
    memory: int  # at the peak, with the program itself
    flops: float  # of matrix products and convolutions that the model takes
    executed_flops: float  # with what the backward pass computes again
    accessed: float  # read from memory and written to it, as the compiler counts
    gathered: float  # received: parameters made whole, arrays moved
    reduced: float  # received: sums over chips
    seconds: float  # that compiling took

    @property
    def intensity(self) -> float:
        """Operations for each byte of memory traffic."""
        return self.executed_flops / self.accessed


class TooLarge(Exception):
    """A program that the compiler refuses, with the bytes that it would take."""

    def __init__(self, memory: int):
        super().__init__(memory)
        self.memory = memory


def measure(run: AbstractRun, bucket: Size, mesh: Mesh, limit: int | None, batch: int) -> Footprint:
    """The step of `run` on `mesh`, compiled as training does for `batch` samples a chip.

    Raises:
      TooLarge: it does not fit into `limit` bytes, as the compiler or the sum of its parts says.
    """
    rows, start = _with_rows(run.batches[bucket], batch * mesh.size), time.perf_counter()
    step = jax.jit(run.train_step, donate_argnums=0, out_shardings=replicated(mesh))
    traced = step.trace(run.state, run.frozen, rows)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if sizes := chips.too_large(error):
            raise TooLarge(sizes[0]) from error
        raise
    text, sizes = compiled.as_text(), compiled.memory_analysis()
    parameters, inputs = _bytes((run.state, run.frozen)), _bytes(rows)
    saved = int(hlo.saved_for_backward(text))
    temporary = sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    memory = sizes.argument_size_in_bytes + temporary + sizes.generated_code_size_in_bytes
    if limit is not None and memory > limit:
        raise TooLarge(memory)
    return Footprint(
        batch=batch,
        parameters=parameters,
        inputs=inputs,
        activations=min(saved, temporary),
        temporary=max(temporary - saved, 0),
        memory=memory,
        flops=flops.count(traced.jaxpr, again=False) / mesh.size,
        executed_flops=flops.count(traced.jaxpr) / mesh.size,
        accessed=compiled.cost_analysis().get("bytes accessed", math.nan),
        **hlo.traffic(text),
        seconds=time.perf_counter() - start,
    )


def largest(measure: Callable[[int], Footprint], limit: int) -> Footprint | None:
    """The step with the largest batch a chip that fits; None if not even one sample does.

    Memory is nearly linear in the batch: two small ones are compiled, then what the line through two of them says fits.

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
        guess = _largest_on_the_line(sizes, limit)
        if guess < 1 or guess in sizes:
            break
        look(guess)
    return fitting[max(fitting)] if fitting else None


def _largest_on_the_line(sizes: dict[int, int], limit: int) -> int:
    """Through the two batches whose memory is nearest to `limit`; always between what fits and what does not."""
    (a, size_a), (b, size_b) = sorted(sizes.items(), key=lambda item: abs(item[1] - limit))[:2]
    each = (size_b - size_a) / (b - a)
    guess = math.floor(b + (limit - size_b) / each) if each > 0 else max(a, b)
    too_large = min((batch for batch, size in sizes.items() if size > limit), default=guess + 1)
    return min(guess, too_large - 1)


def _with_rows(batch: Any, rows: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=x.sharding), batch)


def _bytes(tree: Any) -> int:
    """That lie on each chip."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
