"""Memory that a piece of work takes: the growth of this process's resident set from before it to the peak in it."""

import pathlib
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

T = TypeVar("T")
PAGE = 4096


def measured(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """The result of `work`, and its seconds and bytes."""
    before, start = resident("VmRSS"), time.perf_counter()
    result = work()
    return result, dict(seconds=time.perf_counter() - start, growth=resident("VmHWM") - before)


def resident(field: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at most so far (VmHWM)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def touched(array: np.ndarray) -> int:
    """Bytes of `array`, after one number of every page was read: a tensor that is only mapped is not loaded yet."""
    flat = array.ravel(order="K").view(np.uint8)
    flat[::PAGE].sum()
    return array.nbytes
