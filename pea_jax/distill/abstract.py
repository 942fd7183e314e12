"""The training step of a config and the shapes of its arguments: all that compiling it takes, and no weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax.data.buckets import Size
from pea_jax.distill import models
from pea_jax.distill.models import FrozenModels
from pea_jax.distill.step import TrainState
from pea_jax.distill.training_set import buckets_of
from pea_jax.mesh import batch_sharding, replicated
from pea_jax.weights.abstract import without_values


class AbstractRun(NamedTuple):
    """A step for `jax.jit(train_step, donate_argnums=0)` and its arguments, trees of `jax.ShapeDtypeStruct` that carry
    their sharding; of batches there is one for each bucket (width, height)."""

    train_step: Callable
    state: TrainState
    frozen: dict[str, Any]
    batches: dict[Size, dict[str, Any]]


def abstract_run(config: ConfigDict, mesh: Mesh) -> AbstractRun:
    """The run of a config on a mesh, whose devices need not be there (`jax.experimental.topologies`).

    Configs and tokenizers of its models are read, weights are not.

    Raises:
      PeaError: one of them is missing, broken or not supported.
    """
    with without_values():
        return run_with(config, models.load_models(config, mesh), mesh)


def run_with(config: ConfigDict, frozen_models: FrozenModels, mesh: Mesh) -> AbstractRun:
    """As `abstract_run`, with models that are there already, with or without values."""
    adapter = nnx.eval_shape(lambda: models.new_adapter(config, frozen_models))
    state = jax.eval_shape(lambda: models.first_state(config, nnx.state(models.new_adapter(config, frozen_models))))
    task = models.make_task(config, frozen_models, adapter, mesh)
    return AbstractRun(
        models.make_step_of(config, task),
        _placed(state, replicated(mesh)),
        dict(_null(frozen_models, mesh), **models.frozen_parameters(frozen_models, cached=config.data.cached)),
        batches(config, frozen_models, mesh, buckets_of(config)),
    )


def batches(
    config: ConfigDict, frozen_models: FrozenModels, mesh: Mesh, buckets: Sequence[Size]
) -> dict[Size, dict[str, Any]]:
    """The batch of each bucket, split over the mesh."""
    make = _cached_batch if config.data.cached else _pixel_batch
    return {bucket: _placed(make(frozen_models, bucket, config.batch_size), batch_sharding(mesh)) for bucket in buckets}


def _pixel_batch(frozen_models: FrozenModels, bucket: Size, size: int) -> dict[str, Any]:
    """As `tokenize_captions` gives it."""
    return dict(
        pixels=_pixels(bucket, size),
        student_tokens=_tokens(frozen_models.student, size),
        teacher_tokens=_tokens(frozen_models.teacher, size),
        **_labels(size),
    )


def _cached_batch(frozen_models: FrozenModels, bucket: Size, size: int) -> dict[str, Any]:
    """As `cached_example` gives it, in the dtypes in which the models give it."""
    graphdef, vae = nnx.split(frozen_models.vae)
    teacher, student = frozen_models.teacher, frozen_models.student
    conditioning = jax.eval_shape(teacher.apply, teacher.params, _tokens(teacher, size))
    batch = dict(
        moments=jax.eval_shape(lambda p, x: nnx.merge(graphdef, p).encode(x), vae, _pixels(bucket, size)),
        states=jax.eval_shape(lambda p, t: student.apply(p, **t), student.params, _tokens(student, size)),
        prompt_embeds=conditioning.prompt_embeds,
        **_labels(size),
    )
    if conditioning.pooled_prompt_embeds is not None:
        batch["pooled_prompt_embeds"] = conditioning.pooled_prompt_embeds
    return batch


def _null(frozen_models: FrozenModels, mesh: Mesh) -> dict[str, Any]:
    teacher, student = frozen_models.teacher, frozen_models.student
    null = dict(
        null_states=jax.eval_shape(lambda p, t: student.apply(p, **t), student.params, _tokens(student, 1)),
        null_prompt_embeds=jax.eval_shape(teacher.apply, teacher.params, _tokens(teacher, 1)).prompt_embeds,
    )
    return _placed(null, replicated(mesh))


def _pixels(bucket: Size, size: int) -> jax.ShapeDtypeStruct:
    width, height = bucket
    return jax.ShapeDtypeStruct((size, height, width, 3), jnp.float32)


def _labels(size: int) -> dict[str, Any]:
    shapes = dict(time_ids=(size, 6), native=(size,))
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def _tokens(encoder: Any, size: int) -> Mapping[str, Any]:
    """Of a text encoder or conditioner."""
    return {
        name: jax.ShapeDtypeStruct((size, *ids.shape[1:]), ids.dtype) for name, ids in encoder.tokenize([""]).items()
    }


def _placed(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
