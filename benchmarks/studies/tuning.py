"""Training a part of the UNet behind a small join, with the losses of the adapter's training, to compare with it."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks.studies import parts
from benchmarks.studies.parts import Part
from pea_jax import mesh as meshes
from pea_jax.adapter import PEAdapter
from pea_jax.checkpoint import Checkpoints, saved_steps
from pea_jax.data.batches import Batches
from pea_jax.distill import abstract, data, losses, models
from pea_jax.distill.compiled import CompiledStep
from pea_jax.distill.latents import NoisySample
from pea_jax.distill.models import FrozenModels
from pea_jax.distill.step import TrainState, make_train_step
from pea_jax.distill.task import Batch, DistillationTask
from pea_jax.distill.training_set import training_set
from pea_jax.errors import PeaError
from pea_jax.preemption import Preemption
from pea_jax.report import counting
from pea_jax.text.conditioner import Conditioning


class Tuned(NamedTuple):
    """What was trained: the join, and the UNet's part as `parts.merged` takes it."""

    join: PEAdapter
    unet: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class TuningTask(DistillationTask):
    """As an adapter's, with `params` of a join in the adapter's place and of `part` of the student's UNet.

    The teacher is the UNet as it was. What is trained is float32, and so is the UNet that it is merged into.
    """

    part: Part = Part()

    def loss(self, params, frozen: Mapping[str, Any], batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        student_unet = parts.merged(frozen["unet"], params["unet"])
        return super().loss(params["join"], {**frozen, "student_unet": student_unet}, batch, key)

    def denoiser_terms(
        self, frozen: Mapping[str, Any], batch: Batch, noisy: NoisySample, student: Conditioning, teacher: Conditioning
    ) -> dict[str, Array]:
        tuned = dict(unet=frozen["student_unet"])
        prediction, features = self.denoise(tuned, batch, noisy, student, self._calls(self.remat))
        terms = dict(noise=losses.mse(prediction, noisy.target))
        if self.weights.output or self.weights.features:
            wanted = jax.lax.stop_gradient(self.denoise(frozen, batch, noisy, teacher, self._calls("none")))
            terms["output"] = losses.mse(prediction, wanted[0])
            terms["features"] = losses.feature_mse(features, wanted[1])
        return terms


class StyleTask(TuningTask):
    """A LoRA of the English model itself, which knows no other language: what users have trained before."""

    def conditionings(self, params, frozen: Mapping[str, Any], batch: Batch, key: Array):
        english = self._teacher(frozen, batch)
        dropped = jax.random.bernoulli(key, self.condition_dropout, (batch["time_ids"].shape[0],))
        embeds = jax.numpy.where(dropped[:, None, None], frozen["null_prompt_embeds"], english.prompt_embeds)
        english = dataclasses.replace(english, prompt_embeds=embeds)
        return english, english


def tune(
    config: ConfigDict, trains: str, frozen: FrozenModels, mesh: Mesh, workdir: pathlib.Path, preemption: Preemption
) -> Tuned:
    """Train, or go on training, the part that `parts.PARTS` calls `trains`.

    Raises:
      PeaError: as `train.train`.
      Interrupted: the run was asked to end; the step that it was in is saved.
    """
    part, kind = parts.PARTS[trains], StyleTask if trains == "style" else TuningTask
    training = training_set(config)
    join = models.new_adapter(config, frozen, data.initial_states(config, frozen, training))
    task = kind(**vars(models.make_task(config, frozen, join, mesh)), part=part)
    optimizer, schedule = _optimizer(config, part)
    state = _first_state(config, part, join, frozen, optimizer, mesh)
    batches, buckets = data.training_iterator(config, frozen, training, workdir)
    shapes = abstract.batches(config, frozen, mesh, buckets).values()
    trees = models.frozen_trees(frozen, cached=config.data.cached)
    step = CompiledStep(make_train_step(task, optimizer, schedule, config.ema_decay), state, trees, list(shapes), mesh)
    with contextlib.closing(batches):
        state = _to_the_end(config, step, state, batches, mesh, workdir / "checkpoints", preemption)
    nnx.update(join, jax.tree.map(np.asarray, state.exported["join"]))
    return Tuned(join, jax.tree.map(np.asarray, state.exported["unet"]))


def _to_the_end(
    config: ConfigDict,
    step: CompiledStep,
    state: TrainState,
    batches: Batches,
    mesh: Mesh,
    folder: pathlib.Path,
    preemption: Preemption,
) -> TrainState:
    """The steps that are left after the last checkpoint in `folder`."""
    first = max(saved_steps(folder), default=0)
    preemption.defer()
    with (
        Checkpoints(folder, **config.checkpoint, cleanup=True) as checkpoints,
        counting(config.num_steps - first, "training") as advance,
    ):
        state = checkpoints.restore(state, batches, first) if first else state
        for number in range(first + 1, config.num_steps + 1):
            state, metrics = step(state, meshes.put_batch(next(batches), mesh))
            advance(1)
            last, ending = number == config.num_steps, preemption.due(number)
            if last or ending or number % config.checkpoint.every == 0:
                _check(folder, number, metrics)
                checkpoints.save(number, state, batches, force=last or ending)
            if ending and not last:
                raise preemption.interrupted(f"step {number} is saved; the same command goes on from there")
    return state


def _check(folder: pathlib.Path, number: int, metrics: Mapping[str, Array]) -> None:
    """A state that is not finite is never saved."""
    if not np.isfinite(metrics["loss"]):
        raise PeaError(f"{folder}: the loss of step {number} is {metrics['loss']}; lower the part's rate in PARTS")


def _optimizer(config: ConfigDict, part: Part) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The adapter's, with `part.rate` times its learning rate for the UNet."""
    optimizer, schedule = models.make_optimizer_of(config)
    slower = optax.stateless(lambda updates, _: {**updates, "unet": optax.tree.scale(part.rate, updates["unet"])})
    return optax.chain(optimizer, slower), schedule


def _first_state(
    config: ConfigDict,
    part: Part,
    join: PEAdapter,
    frozen: FrozenModels,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> TrainState:
    trained = parts.start(part, nnx.state(frozen.unet), jax.random.key(config.seed))
    params = jax.tree.map(np.asarray, dict(join=nnx.state(join), unet=trained))
    key, ema = jax.random.key(config.seed), bool(config.ema_decay)
    create = functools.partial(TrainState.create, optimizer=optimizer, key=key, ema=ema)
    return jax.jit(create, out_shardings=meshes.replicated(mesh))(params)
