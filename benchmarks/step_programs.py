"""Programs for several shapes of batch, compiled at the same time."""

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from benchmarks.step_work import Shape
from pea_jax import flops

MOST = 8  # threads that compile; each takes the memory of a compilation


def threads() -> int:
    """How many programs are compiled at once here: half as many as there are cores, since each takes more than one."""
    return max(1, min(MOST, len(os.sched_getaffinity(0)) // 2))


class Program(NamedTuple):
    """A compiled step."""

    run: Any
    operations: float  # of the model in it
    planned: int  # bytes that it takes, as the compiler says
    seconds: float  # from its tracing on; others were compiled at the same time


class Programs:
    """The compiled steps by shape."""

    def __init__(self) -> None:
        self._futures: dict[Shape, Future[Program]] = {}
        self._pool = ThreadPoolExecutor(threads())

    def begin(self, shape: Shape, step: Any, *arguments: Any) -> None:
        """Compile `step` for arguments, which may be abstract, unless that is done or under way.

        It is traced here: tracing holds Python's lock, compiling does not.
        """
        if shape not in self._futures:
            start = time.perf_counter()
            traced = step.trace(*arguments)
            operations = flops.count(traced.jaxpr, again=False)
            self._futures[shape] = self._pool.submit(_compiled, traced.lower(), operations, start)

    def wait(self) -> None:
        """Until nothing is being compiled."""
        wait(self._futures.values())

    def __getitem__(self, shape: Shape) -> Program:
        """That of a shape that was begun, when it is done; raises what its compilation raised."""
        return self._futures[shape].result()

    def keep(self, shape: Shape) -> None:
        """That of this shape alone; the others' code takes memory of the device."""
        self.wait()
        self._futures = {key: future for key, future in self._futures.items() if key == shape}


def _compiled(lowered: Any, operations: float, start: float) -> Program:
    program = lowered.compile()
    plan = program.memory_analysis()
    sizes = [plan.argument_size_in_bytes, plan.temp_size_in_bytes, plan.output_size_in_bytes]
    planned = sum(sizes) + plan.generated_code_size_in_bytes - plan.alias_size_in_bytes
    return Program(program, operations, planned, time.perf_counter() - start)
