"""Work in a few threads, its results in order."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def in_order(calls: Iterable[Callable[[], Result]], threads: int) -> Iterator[Result]:
    """The results of `calls`, in their order, which run in threads but never far ahead: memory is bounded."""
    with ThreadPoolExecutor(threads) as pool:
        running: collections.deque[Future[Result]] = collections.deque()
        for call in calls:
            running.append(pool.submit(call))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
