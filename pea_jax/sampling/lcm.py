"""Latent consistency models (Luo et al. 2023): from noise to a clean estimate, noise again, and so on; diffusers
`LCMScheduler`."""

import numpy as np

from pea_jax.errors import PeaError
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.sampling.sampler import Sampler, denoised_factors

SIGMA_DATA = 0.5


def lcm(config: SchedulerConfig, steps: int) -> Sampler:
    """`sample` is variance preserving; the timesteps are of those that the model was distilled on.

    Raises:
      PeaError: there are fewer of these than `steps`.
    """
    config = config.with_defaults(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    config.require({"thresholding": (False,)})
    table = NoiseSchedule.from_config(config).alphas_cumprod.astype(np.float64)
    timesteps = _timesteps(config.original_inference_steps, len(table), steps)
    config.require_signal(table[timesteps])
    level = table[timesteps]
    alpha, sigma = np.sqrt(level), np.sqrt(1 - level)
    # The last estimate gets no noise any more.
    target_alpha, target_sigma = np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0)
    scaled = timesteps * config.timestep_scaling
    skip, out = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2), scaled / np.sqrt(scaled**2 + SIGMA_DATA**2)
    sample, output = denoised_factors(config.prediction_type, alpha, sigma)
    return Sampler.of(
        timesteps=timesteps,
        denoised_sample=sample,
        denoised_output=output,
        denoised_range=config.clip_sample_range if config.clip_sample else np.inf,
        next_sample=target_alpha * skip,
        next_denoised=target_alpha * out,
        next_noise=target_sigma,
        signal=alpha,
        spread=sigma,
    )


def _timesteps(original: int, total: int, steps: int) -> np.ndarray:
    if not 1 <= original <= total:
        raise PeaError(f"scheduler config: original_inference_steps={original} must be from 1 to {total}")
    if steps > original:
        raise PeaError(
            f"steps={steps}: more than the {original} that the model was distilled on (original_inference_steps)"
        )
    distilled = (np.arange(1, original + 1) * (total // original) - 1)[::-1]
    return distilled[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)]
