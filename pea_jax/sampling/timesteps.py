"""Which of the training timesteps a sampler visits, and how noisy it is there; as diffusers' schedulers choose them."""

import numpy as np

from pea_jax.errors import PeaError
from pea_jax.sampling.noise_schedule import SchedulerConfig


def spaced(config: SchedulerConfig, total: int, steps: int) -> np.ndarray:
    """`[steps]` of `total`, the noisiest first, by `timestep_spacing`; those of "linspace" may be fractional."""
    if config.timestep_spacing == "linspace":
        return np.linspace(0, total - 1, steps)[::-1]
    if config.timestep_spacing == "leading":
        return _within(np.arange(steps)[::-1] * float(total // steps) + config.steps_offset, config, total)
    return np.arange(total, 0, -total / steps).round() - 1


def spaced_apart_from_last(config: SchedulerConfig, total: int, steps: int) -> np.ndarray:
    """As `spaced`, whole, with one more for the end of sampling, which is left out."""
    if config.timestep_spacing == "linspace":
        return np.linspace(0, total - 1, steps + 1).round()[:0:-1]
    if config.timestep_spacing == "leading":
        return _within(np.arange(1, steps + 1)[::-1] * float(total // (steps + 1)) + config.steps_offset, config, total)
    return np.arange(total, 0, -total / steps).round() - 1


def karras(largest: float, smallest: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """Equation 5 of Karras et al. 2022."""
    ramp = np.linspace(0, 1, steps)
    return (largest ** (1 / rho) + ramp * (smallest ** (1 / rho) - largest ** (1 / rho))) ** rho


def timesteps_of(sigmas: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Where in the increasing `table` the logarithms of `sigmas` lie."""
    return np.interp(np.log(sigmas), np.log(table), np.arange(len(table)))


def following(config: SchedulerConfig, sigmas: np.ndarray, table: np.ndarray) -> np.ndarray:
    """What each step leads to."""
    final = 0.0 if config.final_sigmas_type == "zero" else table[0]
    return np.append(sigmas[1:], final)


def _within(timesteps: np.ndarray, config: SchedulerConfig, total: int) -> np.ndarray:
    if timesteps[0] > total - 1:
        raise PeaError(
            f"scheduler config: steps_offset={config.steps_offset} leads to timestep {timesteps[0]:g} of {total}; "
            "take fewer steps, or another timestep_spacing"
        )
    return timesteps
