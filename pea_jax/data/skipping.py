"""Bad samples: another one is taken in their place, they are counted and named, and too many of them stop the run."""

import dataclasses
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from pea_jax.errors import BadSample, PeaError
from pea_jax.report import console

LISTED = 20  # bad samples named on the screen
LEAST = 5  # different bad samples that a set of any size may have
ATTEMPTS = 16  # samples tried for one place in a batch
SEARCHED = 1000  # bad samples passed over in search of good ones

T = TypeVar("T")


class BadSamples:
    """Counts good and bad samples in all threads, and raises where the bad ones are too many.

    Too many are more than `max_rate` of those read, by more than chance would have it (three standard deviations), and
    at least 5 different ones, so that one bad sample in a small set, met in every epoch, does not stop the run. A
    `max_rate` of 0 allows none.
    """

    def __init__(self, max_rate: float):
        self._max_rate, self._least = max_rate, LEAST if max_rate else 1
        self._lock = threading.Lock()
        self._read = self._bad = 0
        self._named: set[int] = set()

    @property
    def count(self) -> int:
        """How often a bad sample was met."""
        return self._bad

    def add_good(self) -> None:
        with self._lock:
            self._read += 1

    def add(self, row: int, error: BadSample) -> None:
        """Count a bad sample, the one of this number, and name it if it is one of the first.

        Raises:
          PeaError: there are too many; the last is named.
        """
        with self._lock:
            self._read += 1
            self._bad += 1
            if len(self._named) < LISTED and row not in self._named:
                self._named.add(row)
                console.print(f"skipped: {error}", highlight=False)
                if len(self._named) == LISTED:
                    console.print("skipped: further bad samples are counted and not named")
            allowed = self._max_rate * self._read
            if self._bad > allowed + 3 * math.sqrt(allowed) and len(self._named) >= self._least:
                counts = f"{self._bad} of the first {self._read} samples cannot be used"
                raise PeaError(f"{counts}, config.data.max_bad_rate={self._max_rate} allows fewer; the last: {error}")


@dataclasses.dataclass(frozen=True)
class Skipping:
    """A place in the epoch to an example: of the sample there, or where that is bad, of others drawn in its place.

    The others are drawn with the place's own random generator from the same rows, hence from the same bucket: the same
    on any number of hosts and threads, and after a resumption. Beside what `example` gives there are "row" int64 [],
    the sample that was taken, and "skipped" int32 [], how many bad ones were tried before.
    """

    source: Any
    rows: Sequence[int] | np.ndarray
    example: Callable[[Any, np.random.Generator], dict[str, Any]]
    bad: BadSamples

    def __call__(self, place: int, rng: np.random.Generator) -> dict[str, Any]:
        error: BadSample | None = None
        for skipped in range(ATTEMPTS):
            row = int(self.rows[place])
            try:
                found = self.example(self.source[row], rng)
            except BadSample as bad:
                self.bad.add(row, bad)
                error, place = bad, int(rng.integers(len(self.rows)))
            else:
                self.bad.add_good()
                return {**found, "row": np.int64(row), "skipped": np.int32(skipped)}
        raise PeaError(f"none of {ATTEMPTS} samples drawn one after the other can be used; the last: {error}")


def first_good(
    source: Any, read: Callable[[Any], T], count: int, numbers: Iterable[int] | np.ndarray | None = None
) -> list[T]:
    """What `read` makes of the first `count` samples of a source, or of those of these `numbers`, that are not bad.

    They are fewer where `SEARCHED` others are.

    Raises:
      BadSample: the first of them, where none is good.
    """
    found: list[T] = []
    bad: list[BadSample] = []
    for number in range(len(source)) if numbers is None else map(int, numbers):
        if len(found) == count or len(bad) == SEARCHED:
            break
        try:
            found.append(read(source[number]))
        except BadSample as error:
            bad.append(error)
    if bad and not found:
        raise bad[0]
    return found
