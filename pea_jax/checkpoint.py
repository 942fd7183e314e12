"""Checkpoints of a run: the train state and the place in the data, written by orbax in the background."""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from pea_jax.errors import PeaError


class Checkpoints:
    """Saves every `every` steps, keeps the latest `keep`; a context manager that waits for the last write."""

    def __init__(self, folder: pathlib.Path, *, every: int, keep: int):
        policies = ocp.training.save_decision_policies
        decision = policies.AnySavePolicy(
            [policies.FixedIntervalPolicy(every), policies.PreemptionCheckpointingPolicy()]
        )
        self._folder = folder
        self._checkpointer = ocp.training.Checkpointer(
            folder.resolve(),
            save_decision_policy=decision,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, iterator: Any, *, force: bool = False) -> None:
        """Copy what `step` steps left, if it is due or forced; writing goes on while training does."""
        if force and self.latest_step == step:
            return
        self._checkpointer.save_checkpointables_async(step, dict(state=state, data=iterator), force=force)

    def restore(self, state: Any, iterator: Any = None, step: int | None = None) -> Any:
        """A saved state, shaped and placed like `state`; `iterator`, if given, is set to go on where it was.

        Args:
          state: with arrays of the right shapes, types and placement; its values are not used.
          iterator: a `grain` iterator over the same data.
          step: by default the latest.

        Raises:
          PeaError: there is no such checkpoint, or it does not fit `state`: another configuration, or damaged files.
        """
        steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
        step = max(steps, default=None) if step is None else step
        if step not in steps:
            raise PeaError(
                f"{self._folder}: no checkpoint{_of(step)}; there are {', '.join(map(str, steps)) or 'none'}"
            )
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        wanted = dict(state=abstract) if iterator is None else dict(state=abstract, data=iterator)
        try:
            return self._checkpointer.load_checkpointables(step, wanted)["state"]
        except Exception as error:  # orbax raises many types; every one of them must stop the run
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise PeaError(
                f"{self._folder}/{step}: this checkpoint cannot be restored ({first}); "
                "was it written with another configuration? Use another --workdir or remove this one"
            ) from error


def _of(step: int | None) -> str:
    return "" if step is None else f" of step {step}"
