"""One training step: `train_step(state, frozen, batch) -> (state, metrics)`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pea_jax.distill.task import DistillationTask
from pea_jax.models import attention


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["step", "params", "opt_state", "ema", "key"], meta_fields=[]
)
@dataclasses.dataclass
class TrainState:
    """All that changes while training, and all that a checkpoint needs to hold of the model."""

    step: Array
    params: Any
    opt_state: Any
    ema: Any  # the averaged parameters; None without averaging
    key: Array

    @classmethod
    def create(cls, params, optimizer: optax.GradientTransformation, key: Array, *, ema: bool) -> "TrainState":
        average = jax.tree.map(jnp.copy, params) if ema else None
        return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params), average, key)

    @property
    def exported(self):
        """The parameters to use: averaged where there is an average."""
        return self.params if self.ema is None else self.ema


def make_optimizer(
    *,
    learning_rate: float,
    end_learning_rate: float,
    warmup_steps: int,
    decay_steps: int,
    power: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with linear warm-up and polynomial decay over `decay_steps` in all, and its learning-rate schedule."""
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, learning_rate, warmup_steps),
            optax.polynomial_schedule(learning_rate, end_learning_rate, power, max(1, decay_steps - warmup_steps)),
        ],
        [warmup_steps],
    )
    adamw = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay)
    return (optax.chain(optax.clip_by_global_norm(clip_norm), adamw) if clip_norm else adamw), schedule


def make_train_step(
    task: DistillationTask,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    ema_decay: float = 0.0,
    microbatches: int = 1,
) -> Callable:
    """The step for `jax.jit(step, donate_argnums=0)`; only `state` is differentiated, and only it changes.

    Args:
      microbatches: parts of equal size into which the batch is split; loss and gradient of one after the other are
        computed, and their means taken (gradient accumulation), so that the memory of one part is enough.
    """

    def train_step(state: TrainState, frozen, batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        with attention.traced_for(task.mesh):
            (loss, terms), gradient = _gradient(task, microbatches, state.params, frozen, batch, key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = None if state.ema is None else _averaged(state.ema, params, ema_decay, state.step)
        metrics = {
            "loss": loss,
            **terms,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        return TrainState(state.step + 1, params, opt_state, ema, state.key), metrics

    return train_step


def _gradient(task: DistillationTask, microbatches: int, params, frozen, batch, key: Array):
    """`((loss, terms), gradient)`, means over the batch."""
    compute = jax.value_and_grad(task.loss, has_aux=True)
    if microbatches == 1:
        return compute(params, frozen, batch, key)
    # Every so many samples one, not so many in a row: each device has its share of every part without sending any.
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0), batch)

    def add(total, part):
        number, samples = part
        found = compute(params, frozen, samples, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, found), None

    first = jax.eval_shape(compute, params, frozen, jax.tree.map(lambda x: x[0], parts), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(microbatches), parts))
    return jax.tree.map(lambda x: x / microbatches, total)


def _averaged(average, params, decay: float, step: Array):
    """Exponential average whose memory grows with the run, so that the first steps are soon forgotten."""
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: kept * old + (1.0 - kept) * new, average, params)
