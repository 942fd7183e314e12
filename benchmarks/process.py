"""A side of a comparison in a process of its own, which waits while the others have their turn."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

LONGEST = 24 * 3600.0  # seconds; the system's waiting takes no infinity


class Failed(Exception):
    """What a side could not do, in a line; `out_of_memory` where that was the reason."""

    def __init__(self, message: str, out_of_memory: bool = False):
        super().__init__(message)
        self.out_of_memory = out_of_memory


class Process:
    """`make(*arguments)` in a fresh process, whose methods are then called there; nothing of it is loaded here.

    `deadline` is of `time.monotonic()`: what is not done by then is ended.
    """

    def __init__(
        self, make: Callable[..., Any], *arguments: Any, deadline: float, environment: Mapping[str, str] | None = None
    ):
        self._started, self._deadline = time.monotonic(), deadline
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        with _set(environment or {}):
            self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of a method.

        Raises:
          Failed: it raised, the process died, or the deadline has come.
        """
        self.begin(method, *arguments)
        return self.result()

    def begin(self, method: str, *arguments: Any) -> None:
        """Have a method called, after those begun before; `result` waits for it."""
        with contextlib.suppress(OSError):  # of a process that is gone, as `result` will say
            self._connection.send((method, arguments))

    def result(self, by: float = float("inf")) -> Any:
        """Of the earliest call whose result was not taken yet; as `call`. `by`: an earlier deadline."""
        try:
            left = min(self._deadline, by) - time.monotonic()
            if not self._connection.poll(min(max(0.0, left), LONGEST)):
                self._process.kill()
                raise Failed("out of time")
            error, result = self._connection.recv()
        except (EOFError, OSError) as gone:
            self._process.join(10)
            raise Failed(f"its process ended with exit code {self._process.exitcode}") from gone
        if error:
            raise Failed(*error)
        return result

    def seconds(self) -> float:
        """Since the process was started."""
        return time.monotonic() - self._started

    def close(self) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    side, failure = None, None
    try:
        side = make(*arguments)
    except Exception as error:
        failure = _described(error)
    with contextlib.suppress(EOFError):
        while True:
            method, values = connection.recv()
            if side is None:
                connection.send((failure, None))
                continue
            connection.send(_answer(side, method, values))


def _answer(side: Any, method: str, values: tuple[Any, ...]) -> tuple[Any, Any]:
    try:
        return None, getattr(side, method)(*values)
    except Exception as error:
        described = _described(error)
    try:
        side.recover()  # outside of the handler above, whose traceback keeps the memory of the failed call
    except Exception as error:
        text, out_of_memory = described
        return (f"{text}; and then, on the way back, {_described(error)[0]}", out_of_memory), None
    return described, None


def _described(error: Exception) -> tuple[str, bool]:
    text = f"{type(error).__name__}: {error}"
    short = " ".join(text.split())[:300]
    return short, any(sign in text for sign in ("RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory", "MemoryError"))


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
