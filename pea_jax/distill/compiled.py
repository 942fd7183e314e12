"""The training step, compiled for every shape of batch before the first one comes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from pea_jax import flops
from pea_jax.distill.step import TrainState
from pea_jax.mesh import compiler_options, replicated
from pea_jax.report import counting
from pea_jax.threads import in_order

Shapes = tuple[tuple[int, ...], ...]
THREADS = 4  # that compile; each takes the memory of a compilation


class CompiledStep:
    """`step(state, batch) -> (state, metrics)`; `state` is donated.

    Args:
      train_step: of `make_train_step`.
      state, frozen: its first arguments, or arrays of the same shapes and places.
      batches: one of each shape that will come; they may be abstract.
      mesh: where all of these are.
    """

    def __init__(self, train_step: Callable, state: TrainState, frozen: Any, batches: Sequence[Any], mesh: Mesh):
        self._step = jitted(train_step, mesh)
        self._frozen = frozen
        self._programs: dict[Shapes, Callable] = {}
        self._operations: dict[Shapes, flops.Operations] = {}
        with counting(len(batches), "compiling the step") as advance:
            programs = in_order(self._lowered(state, batches), THREADS)
            for batch, program in zip(batches, programs, strict=True):
                self._programs[shapes(batch)] = program
                advance(1)

    def _lowered(self, state: TrainState, batches: Sequence[Any]) -> Iterator[Callable]:
        """What compiles each program; tracing holds Python's lock, compiling does not."""
        for batch in batches:
            traced = self._step.trace(state, self._frozen, batch)
            self._operations[shapes(batch)] = flops.operations(traced.jaxpr)
            yield traced.lower().compile

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        return self._programs[shapes(batch)](state, self._frozen, batch)

    def operations(self, batch: Any) -> flops.Operations:
        """Of one step on such a batch, on all devices."""
        return self._operations[shapes(batch)]


def jitted(train_step: Callable, mesh: Mesh) -> Any:
    """The step as it is compiled, here and for a plan."""
    # What comes out lies as it went in; left to itself, the compiler may choose otherwise.
    places = replicated(mesh)
    return jax.jit(train_step, donate_argnums=0, out_shardings=places, compiler_options=compiler_options(mesh))


def shapes(batch: Any) -> Shapes:
    return tuple(leaf.shape for leaf in jax.tree.leaves(batch))
