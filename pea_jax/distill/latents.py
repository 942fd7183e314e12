"""Where the noisy sample comes from. PEA-Diffusion noises the latents of a training picture."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pea_jax.sampling.noise_schedule import NoiseSchedule


class NoisySample(NamedTuple):
    """What the denoiser sees and what it should say."""

    sample: Array  # [B, H, W, C]
    timesteps: Array  # [B] int32
    target: Array  # [B, H, W, C]; the noise, or what else the model predicts: the velocity, the latents


def offset_noise(key: Array, shape: tuple[int, ...], strength: float) -> Array:
    """Gaussian noise `[B, H, W, C]` plus `strength` times one draw for each sample and channel."""
    key_noise, key_offset = jax.random.split(key)
    noise = jax.random.normal(key_noise, shape)
    if not strength:
        return noise
    return noise + strength * jax.random.normal(key_offset, (shape[0], 1, 1, shape[3]))


def forward_diffusion(
    key: Array, latents: Array, schedule: NoiseSchedule, noise_offset: float, timesteps: range | None = None
) -> NoisySample:
    """Scaled latents `[B, H, W, C]` at uniformly drawn timesteps: of `timesteps`, by default of the whole schedule."""
    allowed = range(schedule.num_train_timesteps) if timesteps is None else timesteps
    key_noise, key_time = jax.random.split(key)
    noise = offset_noise(key_noise, latents.shape, noise_offset)
    drawn = jax.random.randint(key_time, (latents.shape[0],), allowed.start, allowed.stop, jnp.int32)
    sample = schedule.add_noise(latents, noise, drawn)
    return NoisySample(sample, drawn, schedule.target(latents, noise, drawn))
