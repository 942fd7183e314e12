"""DDIM without fresh noise (eta 0; Song et al. 2021, equation 12); diffusers `DDIMScheduler`."""

import numpy as np

from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.sampling.sampler import Sampler, denoised_factors, noise_factors
from pea_jax.sampling.timesteps import spaced


def ddim(config: SchedulerConfig, steps: int) -> Sampler:
    """`sample` is variance preserving. What the config does not state is as in diffusers, which then clips."""
    config = config.with_defaults(timestep_spacing="leading", clip_sample=True)
    config.require({"thresholding": (False,)})
    table = NoiseSchedule.from_config(config).alphas_cumprod.astype(np.float64)
    timesteps = spaced(config, len(table), steps).round().astype(int)
    config.require_signal(table[timesteps])
    # The next level is a whole stride below, which with some spacings is not that of the next timestep.
    before = timesteps - len(table) // steps
    final = 1.0 if config.set_alpha_to_one else table[0]
    level, target = table[timesteps], np.where(before < 0, final, table[before])
    alpha, sigma = np.sqrt(level), np.sqrt(1 - level)
    sample, output = denoised_factors(config.prediction_type, alpha, sigma)
    noise_sample, noise_output = noise_factors(config.prediction_type, alpha, sigma)
    return Sampler.of(
        timesteps=timesteps,
        denoised_sample=sample,
        denoised_output=output,
        denoised_range=config.clip_sample_range if config.clip_sample else np.inf,
        next_sample=np.sqrt(1 - target) * noise_sample,
        next_output=np.sqrt(1 - target) * noise_output,
        next_denoised=np.sqrt(target),
        signal=alpha,
        spread=sigma,
    )
