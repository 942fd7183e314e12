"""Checkpoints of a run: the train state and the place in the data, written by orbax in the background."""

import contextlib
import dataclasses
import logging
import pathlib
import sys
import textwrap
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import jax
from orbax import checkpoint
from orbax.checkpoint import v1 as ocp

from pea_jax.errors import PeaError


def saved_steps(folder: pathlib.Path) -> list[int]:
    """The steps of which `folder` has a checkpoint, damaged ones too, in order; nothing is made or read.

    A checkpoint gets its plain number only once it is complete.
    """
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


class Checkpoints:
    """Saves every `every` steps, keeps the latest `keep`; a context manager that waits for the last write.

    With `cleanup`, what a killed run left half-written is removed; only for the run that writes here.
    """

    def __init__(self, folder: pathlib.Path, *, every: int, keep: int, cleanup: bool = False):
        self._folder = folder
        with self._writing():
            self._checkpointer = ocp.training.Checkpointer(
                folder.resolve(),
                context=ocp.Context(async_options=_Writing()),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(every),
                preservation_policy=ocp.training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=cleanup,
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is not None and issubclass(kind, Exception) and jax.process_count() > 1:
            return  # the last write would wait for the others, of which one may be lost, or wait for this one
        try:
            with self._writing():
                self._checkpointer.close()
        except PeaError:
            if kind is None or not issubclass(kind, Exception):
                raise  # else what ended the run is told, which is likely the cause of this

    @property
    def latest_step(self) -> int | None:
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, iterator: Any, *, force: bool = False) -> None:
        """Copy what `step` steps left, if it is due or forced; writing goes on while training does.

        Raises:
          PeaError: it, or the checkpoint before it, cannot be written.
        """
        if force and self.latest_step == step:
            return
        with self._writing():
            self._checkpointer.save_checkpointables_async(step, dict(state=state, data=iterator), force=force)

    def restore(self, state: Any, iterator: Any = None, step: int | None = None) -> Any:
        """A saved state, shaped and placed like `state`; `iterator`, if given, is set to go on where it was.

        Args:
          state: with arrays of the right shapes, types and placement; its values are not used.
          iterator: a `grain` iterator over the same data.
          step: by default the latest.

        Raises:
          PeaError: there is no such checkpoint, or it does not fit `state`: another configuration, or damaged files; or
            `iterator` is over other data.
        """
        step = choose_step(self._folder, step)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        wanted = dict(state=abstract) if iterator is None else dict(state=abstract, data=iterator)
        try:
            with _first_error_alone():
                return self._checkpointer.load_checkpointables(step, wanted)["state"]
        except Exception as error:  # orbax raises many types; every one of them must stop the run
            if isinstance(reason := _innermost(error), PeaError):  # of the iterator, whose data are others
                raise PeaError(f"{self._folder / str(step)}: {reason}") from error
            raise PeaError(
                f"{self._folder / str(step)}: this checkpoint cannot be restored ({_cause(error)}); it is damaged or "
                "of another configuration: remove it to go on from the one before, or use another --workdir"
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of many types, from threads of orbax and tensorstore
            steps = saved_steps(self._folder)
            last = f"step {steps[-1]} is the last complete one, " if steps else ""
            raise PeaError(
                f"{self._folder}: a checkpoint cannot be written ({_cause(error)}); {last}make room there, and the "
                "same command goes on"
            ) from error


class _Writing(ocp.options.AsyncOptions):
    """How orbax writes in the background; the processes wait for one another by `_wait_for_others`."""

    def v0(self) -> checkpoint.AsyncOptions:
        return dataclasses.replace(super().v0(), barrier_sync_fn=_wait_for_others)


def _wait_for_others(*, key: str, timeout_ms: int) -> None:
    """Where this process cannot write its part orbax would wait all the same, 20 minutes, and the others for it."""
    if failed := sys.exc_info()[1]:
        raise failed
    checkpoint.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


@contextlib.contextmanager
def _first_error_alone() -> Iterator[None]:
    """A read that fails is raised; of the others asyncio writes a page each, whenever it comes upon one, even later."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)  # where nothing failed


def choose_step(folder: pathlib.Path, step: int | None) -> int:
    """`step`, or by default the latest that `folder` has.

    Raises:
      PeaError: there is none; the steps that are there are named.
    """
    steps = saved_steps(folder)
    if step not in steps and (step is not None or not steps):
        which = "" if step is None else f" of step {step}"
        raise PeaError(f"{folder}: no checkpoint{which}; there are {', '.join(map(str, steps)) or 'none'}")
    return steps[-1] if step is None else step


def _innermost(error: BaseException) -> BaseException:
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return error


def _cause(error: BaseException) -> str:
    """The innermost reason, without the settings that tensorstore repeats after it."""
    error = _innermost(error)
    reason = str(error).partition(" [tensorstore_spec")[0] or type(error).__name__
    return textwrap.shorten(reason, 300, placeholder=" ...")
