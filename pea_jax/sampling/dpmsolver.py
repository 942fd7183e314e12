"""DPM-Solver++ (2M), midpoint (Lu et al. 2022, algorithm 2); diffusers `DPMSolverMultistepScheduler`."""

import numpy as np

from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.sampling.sampler import Sampler, denoised_factors
from pea_jax.sampling.timesteps import following, karras, spaced_apart_from_last, timesteps_of

OFF = ("use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting", "thresholding")
# The first of each is meant: the others are in the files of DEIS, UniPC and DDPM, and diffusers reads them so.
ALGORITHMS, SOLVERS = ("dpmsolver++", "deis"), ("midpoint", "logrho", "bh1", "bh2")
VARIANCES = (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")


def dpmsolver(config: SchedulerConfig, steps: int) -> Sampler:
    """`sample` is variance preserving."""
    config.require({"algorithm_type": ALGORITHMS, "solver_order": (2,), "solver_type": SOLVERS})
    config.require({name: (False,) for name in OFF})
    config.require({name: (False, None) for name in ("use_exponential_sigmas", "use_beta_sigmas")})
    config.require({"lambda_min_clipped": (-float("inf"),), "variance_type": VARIANCES})
    table = NoiseSchedule.from_config(config).sigmas
    timesteps = spaced_apart_from_last(config, len(table), steps)
    sigma = np.interp(timesteps, np.arange(len(table)), table)
    if config.use_karras_sigmas:
        config.require({"sigma_min": (None,), "sigma_max": (None,)})
        sigma = karras(table[-1], table[0], steps)
        timesteps = timesteps_of(sigma, table).round()
    target = following(config, sigma, table)
    alpha, target_alpha = 1 / np.sqrt(sigma**2 + 1), 1 / np.sqrt(target**2 + 1)
    sample, output = denoised_factors(config.prediction_type, alpha, sigma * alpha)
    towards_denoised = target_alpha * (1 - target / sigma)
    extrapolation = towards_denoised * _extrapolation(config, sigma, target)
    return Sampler.of(
        timesteps=timesteps,
        denoised_sample=sample,
        denoised_output=output,
        next_sample=(target * target_alpha) / (sigma * alpha),
        next_denoised=towards_denoised + extrapolation,
        next_previous=-extrapolation,
        signal=alpha,
        spread=sigma * alpha,
    )


def _extrapolation(config: SchedulerConfig, sigma: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Half of h_i / h_(i-1), the weight of the second-order term; 0 where a step is first order."""
    steps = len(sigma)
    weight = np.zeros(steps)
    first_order_end = config.euler_at_final or (config.lower_order_final and steps < 15)
    last = steps - 1 if first_order_end or config.final_sigmas_type == "zero" else steps
    for i in range(1, last):
        weight[i] = 0.5 * np.log(sigma[i] / target[i]) / np.log(sigma[i - 1] / sigma[i])
    return weight
