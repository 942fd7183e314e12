"""Train an adapter.

    python -m pea_jax.train --config configs/ru.py:emoji --workdir runs/ru-emoji

Any field of the config may be overridden: --config.batch_size=8. A work directory that holds a checkpoint is resumed.
"""

import contextlib
import json
import pathlib
from typing import Any

import jax
from absl import flags
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from pea_jax import adapter_folder, command, flops
from pea_jax import mesh as meshes
from pea_jax.adapter import PEAdapter, is_complete
from pea_jax.checkpoint import Checkpoints, saved_steps
from pea_jax.config import check, differences, of_run
from pea_jax.data.batches import Batches
from pea_jax.distill import data, models
from pea_jax.distill.pictures import Pictures, sample_prompts
from pea_jax.distill.step import TrainState, make_train_step
from pea_jax.errors import PeaError
from pea_jax.preemption import Preemption
from pea_jax.report import Report, console

CONFIG = config_flags.DEFINE_config_file("config", None, "What to train, e.g. configs/ru.py:emoji")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs, pictures and the adapter go")


def main() -> None:
    if CONFIG.value is None or WORKDIR.value is None:
        raise PeaError("--config and --workdir are both needed, e.g. --config configs/ru.py:emoji --workdir runs/ru")
    config, workdir = CONFIG.value, pathlib.Path(WORKDIR.value)
    check(config)
    command.check_folder("--workdir", workdir)
    saved = of_run(workdir)
    if saved is not None and (changed := differences(_fields(saved), _fields(config))):
        advice = "use a new --workdir"
        raise PeaError(f"{workdir}/config.json: this run was started with another {', '.join(changed)}; {advice}")
    with Preemption(str(workdir)) as preemption:
        train(config, workdir, preemption)


def train(config: ConfigDict, workdir: pathlib.Path, preemption: Preemption) -> None:
    """Run or resume the training of `config` in `workdir`, up to the exported adapter.

    Everything is read before anything is written, the quickest first: a run that cannot start leaves no trace.

    Raises:
      PeaError: something is wrong with the config, the files or the disk; all checkpoints before it are whole.
      Interrupted: the run was asked to end; the step that it was in is saved.
    """
    folder, steps = workdir / "adapter", saved_steps(workdir / "checkpoints")
    saving: dict[str, Any] = dict(folder=workdir / "checkpoints", **config.checkpoint)
    if steps and steps[-1] == config.num_steps and is_complete(folder):
        console.print(f"{workdir}: all {config.num_steps} steps are done; the adapter is in {folder}")
        return
    mesh = meshes.make_mesh(**config.mesh)
    if config.batch_size % mesh.size:
        raise PeaError(f"config.batch_size={config.batch_size} must be a multiple of the {mesh.size} devices")
    prompts = sample_prompts(config)
    frozen_models = models.load_models(config, mesh)
    adapter = models.new_adapter(config, frozen_models, data.initial_states(config, frozen_models))
    state = models.new_state(config, adapter, mesh)
    iterator = data.training_iterator(config, frozen_models, workdir)
    if steps:
        with Checkpoints(**saving) as checkpoints:
            state = checkpoints.restore(state, iterator)
        console.print(f"{workdir}: resuming at step {int(state.step)}")
    pictures = Pictures(config, prompts, frozen_models, adapter, mesh, workdir / "samples")
    run = Run(config, frozen_models, adapter, mesh)
    _write_config(workdir, config)
    preemption.defer()
    with (
        contextlib.closing(iterator),
        Checkpoints(**saving, cleanup=True) as checkpoints,
        Report(
            workdir,
            first_step=int(state.step),
            num_steps=config.num_steps,
            batch_size=config.batch_size,
            peak_flops=run.peak_flops,
        ) as report,
    ):
        state = run.to_the_end(state, iterator, checkpoints, report, pictures, preemption)
    nnx.update(adapter, state.exported)
    adapter_folder.save(folder, config, adapter, frozen_models.student, int(state.step))
    skipped = f"; {iterator.skipped} times a bad sample was skipped" if iterator.skipped else ""
    console.print(f"adapter: {folder}{skipped}")


def _fields(config: ConfigDict) -> dict[str, Any]:
    """As they come back from a JSON file."""
    return json.loads(config.to_json())


def _write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    with command.whole_file("--workdir", workdir / "config.json") as partial:
        partial.write_text(json.dumps(_fields(config), indent=2, ensure_ascii=False) + "\n")


class Run:
    """The compiled step of a config with its frozen arguments."""

    def __init__(self, config: ConfigDict, frozen_models: models.FrozenModels, adapter: PEAdapter, mesh: Mesh):
        self._config, self._mesh = config, mesh
        task = models.make_task(config, frozen_models, adapter, mesh)
        step = make_train_step(task, *models.make_optimizer_of(config), config.ema_decay)
        self._step = jax.jit(step, donate_argnums=0)
        self._frozen = models.frozen_trees(frozen_models, cached=config.data.cached)
        peak = flops.peak_flops(mesh.devices.flat[0])
        self.peak_flops = peak * mesh.size if peak else None
        self._flops: dict[Any, float] = {}

    def to_the_end(
        self,
        state: TrainState,
        iterator: Batches,
        checkpoints: Checkpoints,
        report: Report,
        pictures: Pictures,
        preemption: Preemption,
    ) -> TrainState:
        """The steps that are left. Metrics are read one step late, so that the device never waits for the host."""
        config, first, pending = self._config, int(state.step), None
        if first == 0 or (first % config.sample.every == 0 and not pictures.drawn(first)):
            pictures.draw(first, state.exported, report)
        for number in range(first + 1, config.num_steps + 1):
            batch = meshes.put_batch(next(iterator), self._mesh)
            operations = self._operations(state, batch)
            state, metrics = self._step(state, self._frozen, batch)
            self._log(report, pending)
            pending = number, {**metrics, "skipped": iterator.skipped}
            report.advance(number, operations)
            last = number == config.num_steps
            ending = preemption.due(number) and not last
            if last or ending or number % config.checkpoint.every == 0:
                self._log(report, pending)  # a state that is not finite is never saved
                pending = None
                checkpoints.save(number, state, iterator, force=last or ending)
            if ending:
                where = f"step {number} of {config.num_steps} is saved; the same command goes on from there"
                raise preemption.interrupted(where)
            if last or number % config.sample.every == 0:
                pictures.draw(number, state.exported, report)
                report.restart_clock(number)
        return state

    def _operations(self, state: TrainState, batch: Any) -> float:
        """Of one step, on all devices; 0 where it does not matter."""
        if self.peak_flops is None:
            return 0.0
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._flops:
            self._flops[shapes] = flops.count(self._step.trace(state, self._frozen, batch).jaxpr)
        return self._flops[shapes]

    def _log(self, report: Report, pending: tuple[int, dict[str, Any]] | None) -> None:
        """Check one step's metrics, and write them where they are due."""
        if pending is None:
            return
        number, metrics = pending
        values = {name: float(value) for name, value in metrics.items()}
        values["skipped"] = metrics["skipped"]
        report.check(number, values)
        if number % self._config.log_every == 0 or number in (1, self._config.num_steps):
            report.metrics(number, values)


if __name__ == "__main__":
    command.run(main)
