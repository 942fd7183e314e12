"""SIGTERM (the machine is taken away) and Ctrl-C: a run saves after the step it is in, and ends."""

import gc
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
from jax._src import distributed
from jax.experimental import multihost_utils

CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class Interrupted(BaseException):
    """A run was asked to end, and ended in order; no `Exception`, so that nobody takes it for a failure.

    Where it is `alone`, the other processes of the run do not know of it, and would wait for this one.
    """

    def __init__(self, message: str, code: int, *, alone: bool = False):
        super().__init__(message)
        self.code, self.alone = code, alone


class Preemption:
    """A context manager that notes SIGTERM and Ctrl-C.

    Until `defer` is called there is nothing to save, and they end the run at once. Afterwards `due` says when to save.
    A signal during the save changes nothing, but for a second Ctrl-C, which does not wait for it.

    With several processes they must save the same step. JAX's preemption service, which `defer` starts, does that: it
    takes the SIGTERM of any of them, asks all how far they are, and names a step that none has passed; nothing has to
    be sent between steps. Ctrl-C is handed to it as a SIGTERM.
    """

    def __init__(self, what: str):
        self._what = what
        self._received: signal.Signals | None = None
        self._deferred = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in CODES}
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, Interrupted):
            return  # the process is about to end, and another signal must not break that
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        if _several():
            jax.config.update("jax_enable_preemption_service", True)
            distributed.global_state.initialize_preemption_sync_manager()  # which takes SIGTERM from now on
        self._deferred = True

    def due(self, step: int) -> bool:
        """Whether to save after `step` and end; with several processes to be called after every step."""
        if not _several():
            return self._received is not None
        if not multihost_utils.reached_preemption_sync_point(step):
            return False
        self._received = self._received or signal.SIGTERM
        signal.signal(signal.SIGTERM, self._note)
        return True

    def interrupted(self, where: str, *, alone: bool = False) -> Interrupted:
        """What to raise once everything is saved."""
        received = self._received or signal.SIGTERM
        return Interrupted(f"{self._what}: {received.name}, {where}", CODES[received], alone=alone)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if comes_again(number, frame):
            return
        again = self._received is not None
        self._received = self._received or signal.Signals(number)
        if not self._deferred:
            self._deferred = True
            raise self.interrupted("ended before its first step; the same command starts again", alone=True)
        if number == signal.SIGINT and again:
            advice = "the same command goes on from the last checkpoint"
            raise Interrupted(f"{self._what}: ended at once; {advice}", CODES[signal.SIGINT], alone=True)
        if number == signal.SIGINT and _several():
            os.kill(os.getpid(), signal.SIGTERM)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C where there is nothing to save."""
    if not comes_again(number, frame):
        raise KeyboardInterrupt


def comes_again(number: int, frame: FrameType | None) -> bool:
    """Whether a signal came in a callback of the garbage collector, such as JAX's; it is sent again in a moment.

    Python would write a traceback of what is raised there, and go on.
    """
    inside = frame is not None and any(getattr(call, "__code__", None) is frame.f_code for call in gc.callbacks)
    if inside:
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
    return inside


def _several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1
