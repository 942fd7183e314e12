"""Samplers as tables of coefficients: Euler and DPM-Solver++ (2M).

Both are linear in the sample and in what the model says about it, so a step needs only factors known beforehand:

    denoised    = denoised_sample[i] * sample + denoised_output[i] * model_output
    next sample = next_sample[i] * sample + next_denoised[i] * denoised + next_previous[i] * previous denoised

The factors are worked out once, in float64, and equal what PyTorch diffusers' `EulerDiscreteScheduler` and
`DPMSolverMultistepScheduler` compute step by step.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pea_jax.errors import PeaError
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """Float32 tables `[S]` over the S model calls; a pytree, to be an argument of a jitted function.

    Sampling starts from `init_noise_sigma * noise`. `i` below is the step, a traced integer inside `jax.lax.scan`.
    """

    timesteps: np.ndarray
    init_noise_sigma: np.ndarray
    input_scale: np.ndarray
    denoised_sample: np.ndarray
    denoised_output: np.ndarray
    next_sample: np.ndarray
    next_denoised: np.ndarray
    next_previous: np.ndarray

    @property
    def num_steps(self) -> int:
        return self.timesteps.shape[0]

    def scale_model_input(self, sample: jax.Array, i: jax.Array | int) -> jax.Array:
        """What the model is shown at step `i` in place of `sample`."""
        return _at(self.input_scale, i) * sample

    def step(
        self, model_output: jax.Array, i: jax.Array | int, sample: jax.Array, previous: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The next sample, and the denoised estimate that the next step takes as `previous` (zeros at step 0)."""
        denoised = _at(self.denoised_sample, i) * sample + _at(self.denoised_output, i) * model_output
        following = _at(self.next_sample, i) * sample + _at(self.next_denoised, i) * denoised
        return following + _at(self.next_previous, i) * previous, denoised


def make_sampler(name: str, config: SchedulerConfig, steps: int) -> Sampler:
    """`name` is "dpmsolver++" or "euler". Raises `PeaError` for another name, or a config it cannot honour."""
    if name not in SAMPLERS:
        raise PeaError(f"unknown scheduler {name!r}; use one of {', '.join(map(repr, SAMPLERS))}")
    # DPM-Solver++ divides the training timesteps into steps + 1 parts.
    if not 1 <= steps < NoiseSchedule.from_config(config).num_train_timesteps:
        raise PeaError(f"steps={steps}: must be at least 1 and less than the model's number of training timesteps")
    return SAMPLERS[name](config, steps)


def euler(config: SchedulerConfig, steps: int) -> Sampler:
    """First-order steps in sigma (Karras et al. 2022, algorithm 2 without churn); `sample` is x_0 + sigma * noise."""
    config.require({"interpolation_type": ("linear",), "timestep_type": ("discrete",)})
    config.require({"sigma_min": (None,), "sigma_max": (None,)})
    table = NoiseSchedule.from_config(config).sigmas
    timesteps = _euler_timesteps(config, len(table), steps)
    sigmas = np.interp(timesteps, np.arange(len(table)), table)
    if config.use_karras_sigmas:
        sigmas = _karras(sigmas[0], sigmas[-1], steps)
        timesteps = _timesteps_of(sigmas, table)
    sigma, following = sigmas, _following(config, sigmas, table)
    scale = 1 / np.sqrt(sigma**2 + 1)
    sample, output = _denoised(config.prediction_type, scale, sigma * scale)
    return _sampler(
        timesteps=timesteps,
        init_noise_sigma=sigma.max() if config.timestep_spacing != "leading" else np.sqrt(sigma.max() ** 2 + 1),
        input_scale=scale,
        denoised_sample=scale * sample,
        denoised_output=output,
        next_sample=following / sigma,
        next_denoised=1 - following / sigma,
        next_previous=np.zeros_like(sigma),
    )


def dpmsolver(config: SchedulerConfig, steps: int) -> Sampler:
    """DPM-Solver++ (2M), midpoint (Lu et al. 2022, algorithm 2); `sample` is variance preserving."""
    config.require({"algorithm_type": ("dpmsolver++",), "solver_order": (2,), "solver_type": ("midpoint",)})
    config.require({name: (False,) for name in ("use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting")})
    config.require({"thresholding": (False,), "lambda_min_clipped": (-float("inf"),), "variance_type": (None,)})
    table = NoiseSchedule.from_config(config).sigmas
    timesteps = _dpmsolver_timesteps(config, len(table), steps)
    sigmas = np.interp(timesteps, np.arange(len(table)), table)
    if config.use_karras_sigmas:
        sigmas = _karras(table[-1], table[0], steps)
        timesteps = _timesteps_of(sigmas, table).round()
    sigma, following = sigmas, _following(config, sigmas, table)
    alpha, following_alpha = 1 / np.sqrt(sigma**2 + 1), 1 / np.sqrt(following**2 + 1)
    sample, output = _denoised(config.prediction_type, alpha, sigma * alpha)
    towards_denoised = following_alpha * (1 - following / sigma)
    extrapolation = towards_denoised * _extrapolation(config, sigma, following)
    return _sampler(
        timesteps=timesteps,
        init_noise_sigma=1.0,
        input_scale=np.ones_like(sigma),
        denoised_sample=sample,
        denoised_output=output,
        next_sample=(following * following_alpha) / (sigma * alpha),
        next_denoised=towards_denoised + extrapolation,
        next_previous=-extrapolation,
    )


SAMPLERS = {"dpmsolver++": dpmsolver, "euler": euler}


def _at(table: np.ndarray, i: jax.Array | int) -> jax.Array:
    return jnp.asarray(table)[i]


def _sampler(**tables: np.ndarray | float) -> Sampler:
    return Sampler(**{name: np.asarray(table, np.float32) for name, table in tables.items()})


def _denoised(prediction_type: str, alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of x_t = alpha x_0 + sigma noise and of the model output in x_0, where alpha^2 + sigma^2 = 1."""
    if prediction_type == "epsilon":
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        return alpha, -sigma
    return np.zeros_like(alpha), np.ones_like(alpha)


def _extrapolation(config: SchedulerConfig, sigma: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Half of h_i / h_(i-1), the weight of the second-order term; 0 where a step is first order."""
    steps = len(sigma)
    weight = np.zeros(steps)
    first_order_end = config.euler_at_final or (config.lower_order_final and steps < 15)
    last = steps - 1 if first_order_end or config.final_sigmas_type == "zero" else steps
    for i in range(1, last):
        weight[i] = 0.5 * np.log(sigma[i] / following[i]) / np.log(sigma[i - 1] / sigma[i])
    return weight


def _euler_timesteps(config: SchedulerConfig, total: int, steps: int) -> np.ndarray:
    if config.timestep_spacing == "linspace":
        return np.linspace(0, total - 1, steps)[::-1]
    if config.timestep_spacing == "leading":
        return np.arange(steps)[::-1] * float(total // steps) + config.steps_offset
    return np.arange(total, 0, -total / steps).round() - 1


def _dpmsolver_timesteps(config: SchedulerConfig, total: int, steps: int) -> np.ndarray:
    if config.timestep_spacing == "linspace":
        return np.linspace(0, total - 1, steps + 1).round()[:0:-1]
    if config.timestep_spacing == "leading":
        return np.arange(1, steps + 1)[::-1] * float(total // (steps + 1)) + config.steps_offset
    return np.arange(total, 0, -total / steps).round() - 1


def _karras(largest: float, smallest: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """Equation 5 of Karras et al. 2022."""
    ramp = np.linspace(0, 1, steps)
    return (largest ** (1 / rho) + ramp * (smallest ** (1 / rho) - largest ** (1 / rho))) ** rho


def _timesteps_of(sigmas: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.interp(np.log(sigmas), np.log(table), np.arange(len(table)))


def _following(config: SchedulerConfig, sigmas: np.ndarray, table: np.ndarray) -> np.ndarray:
    final = 0.0 if config.final_sigmas_type == "zero" else table[0]
    return np.append(sigmas[1:], final)
