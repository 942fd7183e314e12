"""Files that one process at a time may hold; however it ends, the system lets go of them."""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

_PAUSE = 0.2  # seconds


@contextlib.contextmanager
def held(path: pathlib.Path, wait: float = 0.0) -> Iterator[bool]:
    """Holds the file `path`, made if it is not there, and gives True; or False, where another holds it for `wait`
    seconds more.

    On a file system without locks nobody is seen to hold anything.
    """
    end = time.monotonic() + wait
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            free = _free(descriptor)
            if (free and _is_at(path, descriptor)) or (not free and time.monotonic() >= end):
                yield free
                return
        finally:
            os.close(descriptor)
        time.sleep(_PAUSE)


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
    """Who held the file before may have removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True
