"""Compiles a program to the end, or until its memory is planned."""

import pathlib
import re
import threading
import time
from typing import Any, NamedTuple

import jax

# Later compilers name a page too.
_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (?:page \d+, )?(.*)$", re.MULTILINE)
# Files of XLA's dump, in the order in which they are written.
_PLANNED, _TEXT, _LAST = (
    f"*after_optimizations{name}.txt" for name in ("-buffer-assignment", "", "_after_buffer_assignment")
)


class Program(NamedTuple):
    """A program of one chip; sizes in bytes."""

    text: str  # optimised HLO
    arguments: int
    temporary: int  # with results that do not take the place of an argument
    code: int | None  # of its own; None before it is made


def finish(lowered: jax.stages.Lowered) -> Program:
    """Compiled to the end, all as the compiler says.

    Raises:
      JaxRuntimeError: on TPUs, where it does not fit.
    """
    compiled = lowered.compile()
    sizes, text = compiled.memory_analysis(), compiled.as_text()
    assert sizes is not None and text is not None, "a backend that says nothing of memory"
    return Program(
        text,
        arguments=sizes.argument_size_in_bytes,
        temporary=sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        code=sizes.generated_code_size_in_bytes,
    )


def plan_memory(lowered: jax.stages.Lowered, folder: pathlib.Path) -> Program:
    """Compiled until the order of its operations and the place of each array are settled.

    The code of the kernels, most of the compiler's time for TPUs, is not waited for. The compiler cannot be
    stopped: it goes on, and writes to `folder`, an empty one, until it is done or the process ends.

    Raises:
      JaxRuntimeError: as `finish`.
    """
    outcome, options = _Outcome(), dict(xla_dump_to=str(folder), xla_dump_hlo_as_text=True)
    compiling = threading.Thread(target=outcome.take, args=(lowered, options), daemon=True)
    compiling.start()
    while compiling.is_alive() and not list(folder.glob(_LAST)):
        time.sleep(0.1)
    if outcome.error is not None:
        raise outcome.error
    (planned,), (text,) = ([path.read_text() for path in folder.glob(name)] for name in (_PLANNED, _TEXT))
    arguments, temporary = allocations(planned)
    return Program(text, arguments, temporary, None)


def allocations(planned: str) -> tuple[int, int]:
    """Bytes of arguments, and of all else in a chip's memory, from XLA's account of a program's buffers."""
    arguments = temporary = 0
    for size, kind in _ALLOCATION.findall(planned):
        if kind.startswith("parameter"):
            arguments += int(size)
        elif "color " not in kind and "thread-local" not in kind:  # the fast memories have colours
            temporary += int(size)
    return arguments, temporary


class _Outcome:
    """Of a compilation in another thread."""

    error: Exception | None = None

    def take(self, lowered: jax.stages.Lowered, options: dict[str, Any]) -> None:
        try:
            lowered.compile(compiler_options=options)
        except Exception as error:
            self.error = error
