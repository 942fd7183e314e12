"""Several processes that are one run: how they find one another, agree, and let one speak for all."""

import contextlib
import hashlib
import itertools
import os
import sys
import types
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from pea_jax.companions import Companions, accept, connect, listen, own_address
from pea_jax.errors import PeaError

_WEEK = 7 * 24 * 3600 * 1000  # milliseconds: what is waited for may be a look at a whole training set
_LONGEST_NAME = 256
_numbers = itertools.count()
_companions: Companions | None = None


def join(coordinator: str | None, num_processes: int | None, process_id: int | None, *, detect: bool) -> None:
    """Make this process one of several, before JAX is used for anything; from then on it ends when another is lost.

    Args:
      coordinator: HOST:PORT of process 0; with it `num_processes` and `process_id` are needed.
      num_processes: how many there are.
      process_id: which this is, from 0.
      detect: ask the cluster instead: Slurm, Open MPI, Cloud TPU, Kubernetes, as JAX knows them.

    Raises:
      PeaError: something is missing, or the others cannot be reached.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if not detect and len(missing) == len(given):
        return
    if missing and not detect:
        raise PeaError(f"{', '.join(missing)}: needed as well, as several processes are asked for; or --distributed")
    method = None if missing else "deactivate"
    jax.config.update("jax_enable_preemption_service", False)  # a SIGTERM ends a process, until there is more to lose
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, cluster_detection_method=method)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PeaError(
            f"--distributed: the processes of this run do not find one another ({reason}); check how they are started, "
            "see launch/"
        ) from error
    if several():
        sys.excepthook = _show_and_end
        _watch(coordinator.rpartition(":")[0] if coordinator else own_address())


def _show_and_end(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """At an error that nobody expected: else this process would wait for the others, who wait for it."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    fail()
    os._exit(1)


def _watch(host: str) -> None:
    """Process 0, which the others reach under the name `host`, and they hold connections from now on."""
    global _companions
    number = jax.process_index()
    if number == 0:
        server, port = listen()
        _tell(f"{host} {port}")
        connections = accept(server, jax.process_count())
    else:
        host, told = _tell("").split()
        connections = connect(host, int(told), number)
    _companions = Companions(number, connections)


def _tell(text: str) -> str:
    """What process 0 tells all."""
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(text.encode().ljust(_LONGEST_NAME), np.uint8))
    return np.asarray(told, np.uint8).tobytes().decode().strip()


def leave() -> None:
    """Say to the others that this process ends in order."""
    if _companions:
        _companions.leave()


def fail() -> None:
    """Say to the others that this process fails, before it ends without waiting for them."""
    if _companions:
        _companions.fail()


def several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that prints and writes; the only one, or the first of several."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def agree(number: int) -> int:
    """What process 0 says; all have to ask."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number))) if several() else number


def check_same(what: str, describe: Callable[[], str]) -> None:
    """Refuse to go on with other things than process 0 has; all have to ask, and only of several it is described.

    Raises:
      PeaError: in the processes whose description is another one.
    """
    if several() and _tell(own := hashlib.sha256(describe().encode()).hexdigest()) != own:
        raise PeaError(
            f"process {jax.process_index()} has another {what} than process 0; start all with the same command, code "
            "and data"
        )


def wait_for_all(what: str) -> None:
    """Until every process is here, in the same order of calls."""
    if several():
        from orbax.checkpoint import multihost  # whose barrier, unlike those of JAX, occupies no device

        multihost.get_barrier_sync_fn()(key=f"pea_jax {next(_numbers)} {what}", timeout_ms=_WEEK)


@contextlib.contextmanager
def first_goes_ahead(what: str) -> Iterator[None]:
    """Process 0 runs the body before the others do, who find what it left on a disk that they share."""
    if not is_first():
        wait_for_all(what)
    try:
        yield
    finally:
        if is_first():
            wait_for_all(what)
