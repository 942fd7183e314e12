"""Euler's method and its ancestral version; `sample` is x_0 + sigma * noise."""

import numpy as np

from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.sampling.sampler import Sampler, denoised_factors
from pea_jax.sampling.timesteps import following, karras, spaced, timesteps_of


def euler(config: SchedulerConfig, steps: int) -> Sampler:
    """First-order steps in sigma (Karras et al. 2022, algorithm 2 without churn); diffusers
    `EulerDiscreteScheduler`."""
    config.require({"interpolation_type": ("linear",), "timestep_type": ("discrete",)})
    config.require({"sigma_min": (None,), "sigma_max": (None,)})
    config.require({name: (False, None) for name in ("use_exponential_sigmas", "use_beta_sigmas")})
    table = NoiseSchedule.from_config(config).sigmas
    timesteps = spaced(config, len(table), steps)
    sigmas = np.interp(timesteps, np.arange(len(table)), table)
    if config.use_karras_sigmas:
        sigmas = karras(sigmas[0], sigmas[-1], steps)
        timesteps = timesteps_of(sigmas, table)
    return _in_sigma(config, timesteps, sigmas, following(config, sigmas, table), np.zeros_like(sigmas))


def euler_ancestral(config: SchedulerConfig, steps: int) -> Sampler:
    """Euler's steps that go further down and add fresh noise (k-diffusion's `sample_euler_ancestral`); diffusers
    `EulerAncestralDiscreteScheduler`."""
    config.require({"prediction_type": ("epsilon", "v_prediction")})
    table = NoiseSchedule.from_config(config).sigmas
    timesteps = spaced(config, len(table), steps)
    sigma = np.interp(timesteps, np.arange(len(table)), table)
    target = np.append(sigma[1:], 0.0)
    fresh = target * np.sqrt(sigma**2 - target**2) / sigma
    return _in_sigma(config, timesteps, sigma, np.sqrt(target**2 - fresh**2), fresh)


def _in_sigma(
    config: SchedulerConfig,
    timesteps: np.ndarray,
    sigma: np.ndarray,
    towards: np.ndarray,
    fresh: np.ndarray,
) -> Sampler:
    """Steps from `sigma` to `towards`, with so much `fresh` noise."""
    scale = 1 / np.sqrt(sigma**2 + 1)
    sample, output = denoised_factors(config.prediction_type, scale, sigma * scale)
    return Sampler.of(
        timesteps=timesteps,
        init_noise_sigma=sigma.max() if config.timestep_spacing != "leading" else np.sqrt(sigma.max() ** 2 + 1),
        input_scale=scale,
        denoised_sample=scale * sample,
        denoised_output=output,
        next_sample=towards / sigma,
        next_denoised=1 - towards / sigma,
        next_noise=fresh,
        signal=np.ones_like(sigma),
        spread=sigma,
    )
