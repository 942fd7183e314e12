"""The forward diffusion process: how noisy a sample is at each training timestep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pea_jax.sampling.scheduler_config import SchedulerConfig

__all__ = ["NoiseSchedule", "SchedulerConfig"]


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """`alphas_cumprod [T]` of the variance-preserving process x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise (DDPM)."""

    alphas_cumprod: np.ndarray
    prediction_type: str

    @classmethod
    def from_config(cls, config: SchedulerConfig) -> "NoiseSchedule":
        # Single-precision betas, as PyTorch diffusers rounds them: the model was trained on exactly these.
        betas = _betas(config).astype(np.float32)
        betas = _without_signal_at_the_end(betas) if config.rescale_betas_zero_snr else betas
        return cls(_cumulated(betas), config.prediction_type)

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def sigmas(self) -> np.ndarray:
        """`[T]` noise-to-signal ratio sqrt((1 - a_t) / a_t), increasing with t; float64.

        Where there is no signal at all, the ratio that diffusers puts in place of the infinite one.
        """
        alphas_cumprod = np.where(self.alphas_cumprod == 0, 2.0**-24, self.alphas_cumprod.astype(np.float64))
        return np.sqrt((1 - alphas_cumprod) / alphas_cumprod)

    def add_noise(self, sample: jax.Array, noise: jax.Array, timesteps: jax.Array) -> jax.Array:
        """Noisy `[B, ...]` samples at integer `timesteps [B]`."""
        signal, spread = self._factors(sample, timesteps)
        return signal * sample + spread * noise

    def velocity(self, sample: jax.Array, noise: jax.Array, timesteps: jax.Array) -> jax.Array:
        """What a v-prediction model is trained to return (Salimans and Ho 2022, appendix D)."""
        signal, spread = self._factors(sample, timesteps)
        return signal * noise - spread * sample

    def target(self, sample: jax.Array, noise: jax.Array, timesteps: jax.Array) -> jax.Array:
        """What the model is trained to return, by its `prediction_type`."""
        if self.prediction_type == "epsilon":
            return noise
        return sample if self.prediction_type == "sample" else self.velocity(sample, noise, timesteps)

    def _factors(self, sample: jax.Array, timesteps: jax.Array) -> tuple[jax.Array, jax.Array]:
        alphas_cumprod = jnp.asarray(self.alphas_cumprod)[timesteps]
        alphas_cumprod = alphas_cumprod.reshape(-1, *(1,) * (sample.ndim - 1))
        return jnp.sqrt(alphas_cumprod), jnp.sqrt(1 - alphas_cumprod)


def _betas(config: SchedulerConfig) -> np.ndarray:
    if config.trained_betas is not None:
        return np.asarray(config.trained_betas)
    if config.beta_schedule == "linear":
        return np.linspace(config.beta_start, config.beta_end, config.num_train_timesteps)
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps) ** 2


def _cumulated(betas: np.ndarray) -> np.ndarray:
    """`alphas_cumprod` in float32, added up in float64, as PyTorch does."""
    return np.cumprod(np.float32(1) - betas, dtype=np.float64).astype(np.float32)


def _without_signal_at_the_end(betas: np.ndarray) -> np.ndarray:
    """Lin et al. (2024), algorithm 1, in float32: the last timestep is noise alone, the first as before."""
    root = np.sqrt(_cumulated(betas))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    level = root**2
    return np.float32(1) - np.concatenate([level[:1], level[1:] / level[:-1]])
