"""Train an adapter.

    python -m pea_jax.train --config configs/ru.py:emoji --workdir runs/ru-emoji

Any field of the config may be overridden: --config.batch_size=8. A work directory that holds a checkpoint is resumed,
with the same fields but for those that say where and how fast a run computes (`CHANGEABLE`).
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from pea_jax import adapter_folder, command, flops, locks, partition, processes
from pea_jax import mesh as meshes
from pea_jax.adapter import PEAdapter, check_replaceable, is_complete
from pea_jax.checkpoint import Checkpoints, saved_steps
from pea_jax.config import check, differences, of_run
from pea_jax.data.batches import Batches
from pea_jax.data.buckets import Size
from pea_jax.data.loader import check_buckets
from pea_jax.distill import abstract, data, models
from pea_jax.distill.compiled import CompiledStep
from pea_jax.distill.pictures import Pictures, sample_prompts
from pea_jax.distill.step import TrainState
from pea_jax.errors import PeaError
from pea_jax.preemption import Preemption
from pea_jax.report import Report, console, writing

CONFIG = config_flags.DEFINE_config_file("config", None, "What to train, e.g. configs/ru.py:emoji")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs, pictures and the adapter go")

# Where a run computes and how patient it is, not what it learns: other machines may need other values to go on.
CHANGEABLE = (
    "mesh.data", "mesh.fsdp", "remat", "checkpoint.every", "checkpoint.keep", "log_every", "data.num_threads",
    "data.timeout", "data.max_bad_rate", "data.cache_dir",
)  # fmt: skip

LOCK = ".lock"  # held by the run that writes to a work directory
WAIT = 120  # seconds for its end: a network file system may hold it so long for a machine that died


def main() -> None:
    if CONFIG.value is None or not WORKDIR.value:
        raise PeaError("--config and --workdir are both needed, e.g. --config configs/ru.py:emoji --workdir runs/ru")
    config, workdir = CONFIG.value, pathlib.Path(WORKDIR.value)
    command.check_folder("--workdir", workdir)
    with Preemption(str(workdir)) as preemption:
        wait_for_another(workdir)
        _check_resumable(config, workdir)
        train(config, workdir, preemption)


def train(config: ConfigDict, workdir: str | pathlib.Path, preemption: Preemption) -> None:
    """Run or resume the training of `config` in `workdir`, up to the exported adapter.

    Everything is read before anything is written, the quickest first: a run that cannot start leaves no trace. Of
    several processes all come through here; the first of them prints and writes.

    Raises:
      PeaError: something is wrong with the config, the files or the disk; all checkpoints before it are whole.
      Interrupted: the run was asked to end; the step that it was in is saved.
    """
    check(config)
    workdir = pathlib.Path(workdir)
    processes.check_same("config", lambda: _told(config))
    folder, latest = workdir / "adapter", processes.agree(max(saved_steps(workdir / "checkpoints"), default=0))
    saving: dict[str, Any] = dict(folder=workdir / "checkpoints", **config.checkpoint)
    if processes.agree(latest == config.num_steps and is_complete(folder)):
        console.print(f"{workdir}: all {config.num_steps} steps are done; the adapter is in {folder}")
        return
    check_replaceable(folder)
    mesh = meshes.make_mesh_for(config.batch_size, **config.mesh, microbatches=config.num_microbatches)
    training = data.common_training_set(config)
    check_buckets(training.rows_by_bucket, config.batch_size)
    prompts = sample_prompts(config, training)
    frozen_models = models.load_models(config, mesh)
    adapter = models.new_adapter(config, frozen_models, data.initial_states(config, frozen_models, training))
    state = models.new_state(config, adapter, mesh)
    iterator, buckets = data.training_iterator(config, frozen_models, training, workdir)
    if latest:
        with Checkpoints(**saving) as checkpoints:
            state = checkpoints.restore(state, iterator, latest)
        console.print(f"{workdir}: resuming at step {latest}")
    pictures = Pictures(config, prompts, frozen_models, adapter, mesh, workdir / "samples")
    run = Run(config, frozen_models, adapter, mesh, state, buckets)
    if config.data.cached:
        models.delete_text_encoders(frozen_models)  # the pictures' prompts are encoded, all others lie in the cache
    with alone(workdir):
        if processes.is_first():
            _write_config(workdir, config)
        preemption.defer()
        with (
            contextlib.closing(iterator),
            Checkpoints(**saving, cleanup=True) as checkpoints,
            Report(
                workdir,
                first_step=latest,
                num_steps=config.num_steps,
                batch_size=config.batch_size,
                peak_flops=run.peak_flops,
                writes=processes.is_first(),
            ) as report,
        ):
            state = run.to_the_end(latest, state, iterator, checkpoints, report, pictures, preemption)
        nnx.update(adapter, jax.tree.map(np.asarray, state.exported))
        if processes.is_first():
            adapter_folder.save(folder, config, adapter, frozen_models.student, config.num_steps)
    skipped = f"; {iterator.skipped} times a bad sample was skipped" if iterator.skipped else ""
    console.print(f"adapter: {folder}{skipped}")


def wait_for_another(workdir: pathlib.Path) -> None:
    """Until the run that writes to a work directory ends, if there is one.

    Raises:
      PeaError: it goes on for `WAIT` seconds more.
    """
    lock = workdir / LOCK
    if not processes.is_first() or not lock.exists():
        return
    with locks.held(lock) as free:
        if free:
            return
    console.print(f"{workdir}: another run is training there; waiting {WAIT} s for its end")
    with locks.held(lock, WAIT) as free:
        if not free:
            raise _occupied(workdir)


@contextlib.contextmanager
def alone(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a work directory: of two runs in one, each would drop what the other has logged and half saved.

    Raises:
      PeaError: another run holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as held:
        if processes.is_first():
            with writing(workdir):
                workdir.mkdir(parents=True, exist_ok=True)
                free = held.enter_context(locks.held(workdir / LOCK))
            if not free:
                raise _occupied(workdir)
            held.callback(_remove, workdir / LOCK)
        processes.wait_for_all("the work directory")
        yield


def _remove(lock: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        lock.unlink()


def _occupied(workdir: pathlib.Path) -> PeaError:
    advice = f"wait for its end, or use a new --workdir; if there is none, remove {workdir / LOCK}"
    return PeaError(f"{workdir}: another run is training there; {advice}")


def _check_resumable(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse to go on with a run as another one; where nothing of it is saved, nothing can be mixed or lost."""
    saved = of_run(workdir)
    if saved is None or not (saved_steps(workdir / "checkpoints") or is_complete(workdir / "adapter")):
        return
    found = differences(_fields(saved), _fields(config))
    if changed := [name for name in found if name not in CHANGEABLE]:
        advice = "use a new --workdir"
        raise PeaError(f"{workdir}/config.json: this run was started with another {', '.join(changed)}; {advice}")


def _fields(config: ConfigDict) -> dict[str, Any]:
    """As they come back from a JSON file."""
    return json.loads(config.to_json())


def _told(config: ConfigDict) -> str:
    """What several processes must be told alike: all but where each host keeps its files."""
    fields = _fields(config)
    del fields["data"]["cache_dir"]
    return json.dumps(fields, sort_keys=True)


def _write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    with command.whole_file("--workdir", workdir / "config.json") as partial:
        partial.write_text(json.dumps(_fields(config), indent=2) + "\n")


class Run:
    """The compiled steps of a config with their frozen arguments."""

    def __init__(
        self,
        config: ConfigDict,
        frozen_models: models.FrozenModels,
        adapter: PEAdapter,
        mesh: Mesh,
        state: TrainState,
        buckets: list[Size],
    ):
        self._config, self._mesh = config, mesh
        task = models.make_task(config, frozen_models, adapter, mesh)
        step = models.make_step_of(config, task)
        if mesh.shape["fsdp"] > 1:
            parameters = models.frozen_parameters(frozen_models, cached=config.data.cached)
            console.print(partition.summary(parameters, mesh), highlight=False)
        frozen = models.frozen_trees(frozen_models, cached=config.data.cached)
        batches = abstract.batches(config, frozen_models, mesh, buckets)
        self._step = CompiledStep(step, state, frozen, list(batches.values()), mesh)
        peak = flops.peak_flops(mesh.devices.flat[0])
        self.peak_flops = peak * mesh.size if peak else None

    def to_the_end(
        self,
        first: int,
        state: TrainState,
        iterator: Batches,
        checkpoints: Checkpoints,
        report: Report,
        pictures: Pictures,
        preemption: Preemption,
    ) -> TrainState:
        """The steps after `first`. Metrics are read one step late, so that the device never waits for the host."""
        config, pending = self._config, None
        was_due = first % config.sample.every == 0 or first == config.num_steps
        if first == 0 or (was_due and not pictures.drawn(first)):  # else it ended before they were there
            pictures.draw(first, state.exported, report)
        report.restart_clock(first)
        for number in range(first + 1, config.num_steps + 1):
            values = next(iterator)
            with jax.transfer_guard("disallow"):  # but those that are asked for
                batch = meshes.put_batch(values, self._mesh)
                state, metrics = self._step(state, batch)
                self._log(report, pending)
            pending = number, {**metrics, "skipped": iterator.skipped}
            report.advance(number, *self._step.operations(batch))
            last = number == config.num_steps
            ending = preemption.due(number) and not last
            saving = last or ending or number % config.checkpoint.every == 0
            drawing = last or number % config.sample.every == 0
            if saving or drawing:
                self._log(report, pending)  # a state that is not finite is neither saved nor drawn
                pending = None
            if saving:
                checkpoints.save(number, state, iterator, force=last or ending)
            if ending:
                where = f"step {number} of {config.num_steps} is saved; the same command goes on from there"
                raise preemption.interrupted(where)
            if drawing:
                pictures.draw(number, state.exported, report)
                report.restart_clock(number)
        return state

    def _log(self, report: Report, pending: tuple[int, dict[str, Any]] | None) -> None:
        """Check one step's metrics, and write them where they are due."""
        if pending is None:
            return
        number, metrics = pending
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        values["skipped"] = metrics["skipped"]
        report.check(number, values)
        if number % self._config.log_every == 0 or number in (1, self._config.num_steps):
            report.metrics(number, values)


if __name__ == "__main__":
    command.run(main)
