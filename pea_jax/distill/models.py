"""From a config to the frozen models, a new adapter and the task that binds them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.distill.step import TrainState, make_optimizer, make_train_step
from pea_jax.distill.task import DistillationTask, LossWeights
from pea_jax.errors import PeaError
from pea_jax.mesh import replicated
from pea_jax.models.quantisation import quantise
from pea_jax.models.unet import UNet2DCondition
from pea_jax.models.vae import AutoencoderKL, VAEConfig
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.text.conditioner import Conditioner
from pea_jax.text.encoders import TextEncoder
from pea_jax.text.joined import JoinedTextEncoder, load_text_encoders
from pea_jax.text.stable_diffusion import load_conditioner
from pea_jax.weights import load_unet, load_vae
from pea_jax.weights.locations import BaseModel, locate_base


@dataclasses.dataclass(frozen=True)
class Encoders:
    """What a sample meets before the denoiser: autoencoder, English text encoders, that of the new language."""

    vae: AutoencoderKL
    teacher: Conditioner
    student: TextEncoder | JoinedTextEncoder


@dataclasses.dataclass(frozen=True)
class FrozenModels(Encoders):
    """All of the base model, and the text encoder of the new language."""

    unet: UNet2DCondition
    scheduler: SchedulerConfig


def load_models(config: ConfigDict, mesh: Mesh) -> FrozenModels:
    """All frozen models of a config, in its dtype, their parameters placed on the mesh.

    Raises:
      PeaError: one of them is missing, broken or not supported, or the UNet is made for inpainting.
    """
    base = locate_base(config.base_model, config.base_model_config)
    encoders = load_encoders(config, mesh)
    unet = quantised(config, load_unet(base.weights, **_settings(config, mesh, base)))
    if unet.config.in_channels != encoders.vae.config.latent_channels:
        raise PeaError(
            f"{config.base_model}: its UNet takes {unet.config.in_channels} channels, not the autoencoder's "
            f"{encoders.vae.config.latent_channels}; use the base model, the adapter then goes with its inpainting "
            "version too"
        )
    return FrozenModels(**vars(encoders), unet=unet, scheduler=SchedulerConfig.of_base(base))


def load_encoders(config: ConfigDict, mesh: Mesh) -> Encoders:
    """The frozen models without the UNet; as `load_models`."""
    base = locate_base(config.base_model, config.base_model_config)
    settings = _settings(config, mesh, base)
    vae = load_vae(base.weights, **settings | dict(dtype=jnp.dtype(config.vae_dtype or config.dtype)))
    _check_sizes(config, vae.config)
    return Encoders(
        vae=vae,
        teacher=load_conditioner(base.weights, **settings),
        student=load_student(config, mesh),
    )


def _check_sizes(config: ConfigDict, vae_config: VAEConfig) -> None:
    buckets = [("data.buckets", size) for size in config.data.buckets]
    for name, (width, height) in [("picture_size", config.picture_size), *buckets]:
        try:
            vae_config.latent_size(height, width)
        except PeaError as error:
            raise PeaError(f"config.{name}: {error}") from error


def quantised(config: ConfigDict, unet: UNet2DCondition) -> UNet2DCondition:
    """`unet` with its kernels in 8 bits, if the config wants them so.

    Raises:
      PeaError: the config names a type that there is not, or qwix is not installed.
    """
    rule = config.quantisation
    return quantise(unet, rule.weights, activations=rule.activations) if rule.weights else unet


def _settings(config: ConfigDict, mesh: Mesh, base: BaseModel) -> dict[str, Any]:
    return dict(config=base.configs, dtype=jnp.dtype(config.dtype), mesh=mesh)


def load_student(config: ConfigDict, mesh: Mesh) -> TextEncoder | JoinedTextEncoder:
    """The text encoder of the new language, or several side by side."""
    rule = dict(config.text_encoder)
    return load_text_encoders(rule.pop("id"), **rule, dtype=jnp.dtype(config.dtype), mesh=mesh)


def new_adapter(config: ConfigDict, models: FrozenModels, states: jax.Array | None = None) -> PEAdapter:
    """An untrained adapter, its widths those of the models, drawn from the config's seed.

    With text states `[N, L, D]` it starts as a linear map of them, see `PEAdapter.start_linear`.
    """
    unet = models.unet.config
    dims = AdapterDims(
        input_dim=models.student.hidden_size,
        pooled_dim=unet.pooled_dim if unet.addition_embed_type else None,
        output_dim=unet.prompt_embed_dim,
        **config.adapter,
    )
    adapter = PEAdapter(dims, rngs=nnx.Rngs(config.seed))
    if states is not None:
        adapter.start_linear(states, jax.random.key(config.seed))
    return adapter


def make_optimizer_of(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a config and its learning-rate schedule."""
    return make_optimizer(**config.optimizer, decay_steps=config.num_steps)


def new_state(config: ConfigDict, adapter: PEAdapter, mesh: Mesh) -> TrainState:
    """The state before the first step, on every device of the mesh."""
    params = jax.tree.map(np.asarray, nnx.state(adapter))
    return jax.jit(functools.partial(first_state, config), out_shardings=replicated(mesh))(params)


def first_state(config: ConfigDict, params: nnx.State) -> TrainState:
    """As `new_state`, of the adapter's parameters; pure."""
    optimizer, _ = make_optimizer_of(config)
    return TrainState.create(params, optimizer, jax.random.key(config.seed), ema=bool(config.ema_decay))


def make_task(config: ConfigDict, models: FrozenModels, adapter: PEAdapter, mesh: Mesh) -> DistillationTask:
    """The distillation task of a config.

    Raises:
      PeaError: the timesteps to be drawn are none of the base model's.
    """
    schedule = NoiseSchedule.from_config(models.scheduler)
    timesteps = range(config.min_timestep, min(config.max_timestep, schedule.num_train_timesteps))
    if not timesteps:
        problem = f"the schedule of {config.base_model} ends at {schedule.num_train_timesteps}"
        raise PeaError(f"config.min_timestep={config.min_timestep}: {problem}")
    return DistillationTask(
        adapter=nnx.graphdef(adapter),
        unet=nnx.graphdef(models.unet),
        vae=nnx.graphdef(models.vae),
        student=models.student,
        teacher=models.teacher,
        schedule=schedule,
        scaling_factor=models.vae.config.scaling_factor,
        weights=LossWeights(**config.loss),
        condition_dropout=config.condition_dropout,
        noise_offset=config.noise_offset,
        timesteps=timesteps,
        mesh=mesh,
        remat=config.remat,
    )


def make_step_of(config: ConfigDict, task: DistillationTask) -> Callable:
    """The training step of a config, see `make_train_step`."""
    return make_train_step(task, *make_optimizer_of(config), config.ema_decay, config.num_microbatches)


def delete_text_encoders(models: FrozenModels) -> None:
    """Give back the memory of both; they can describe themselves afterwards, but encode nothing."""
    for array in jax.tree.leaves((models.teacher.params, models.student.params)):
        array.delete()


def frozen_trees(models: FrozenModels, *, cached: bool) -> dict[str, Any]:
    """The `frozen` argument of the training step; with cached latents and text states the UNet alone is needed."""
    null_states, _ = models.student.encode([""])
    null = dict(null_states=null_states, null_prompt_embeds=models.teacher.encode([""]).prompt_embeds)
    if models.student.mesh is not None:
        null = jax.device_put(jax.tree.map(np.asarray, null), replicated(models.student.mesh))
    return dict(null, **frozen_parameters(models, cached=cached))


def frozen_parameters(models: FrozenModels, *, cached: bool) -> dict[str, Any]:
    """Of `frozen_trees` what networks hold."""
    parameters: dict[str, Any] = dict(unet=nnx.state(models.unet))
    if not cached:
        parameters |= dict(vae=nnx.state(models.vae), student=models.student.params, teacher=models.teacher.params)
    return parameters
