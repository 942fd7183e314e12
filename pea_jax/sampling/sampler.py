"""A sampler as tables of coefficients.

Every sampler here is linear in the sample, in what the model says of it and in fresh noise, but for a clip, so that a
step needs only factors known beforehand:

    denoised    = clip(denoised_sample[i] * sample + denoised_output[i] * model_output)
    next sample = next_sample[i] * sample + next_output[i] * model_output + next_denoised[i] * denoised
                  + next_previous[i] * previous denoised + next_noise[i] * noise

The factors are worked out once, in float64.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

CLEAN = dict(signal=1.0, spread=0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """Float32 tables `[S]` over the S model calls; a pytree, to be an argument of a jitted function.

    Sampling starts from `init_noise_sigma * noise`, or from a picture with noise. `i` below is the step, a traced
    integer inside `jax.lax.scan`. `signal` and `spread` `[S + 1]` say how noisy a sample is before each step; after the
    last it is clean. `is_stochastic` says whether steps take fresh noise.
    """

    timesteps: np.ndarray
    init_noise_sigma: np.ndarray
    input_scale: np.ndarray
    denoised_sample: np.ndarray
    denoised_output: np.ndarray
    denoised_range: np.ndarray
    next_sample: np.ndarray
    next_output: np.ndarray
    next_denoised: np.ndarray
    next_previous: np.ndarray
    next_noise: np.ndarray
    signal: np.ndarray
    spread: np.ndarray
    is_stochastic: bool = dataclasses.field(default=False, metadata={"static": True})

    @classmethod
    def of(cls, timesteps: np.ndarray, **tables: np.ndarray | float) -> "Sampler":
        """From float64 tables; those left out are zeros, `input_scale` ones, `init_noise_sigma` 1, and without a
        `denoised_range` nothing is clipped. `signal` and `spread` have S entries, the clean end is added."""
        ones, zeros = np.ones(len(timesteps)), np.zeros(len(timesteps))
        usual = dict(input_scale=ones, init_noise_sigma=1.0, denoised_range=np.inf)
        rest = {name: zeros for name in ("next_output", "next_previous", "next_noise")}
        levels = {name: np.append(tables[name], end) for name, end in CLEAN.items()}
        all_tables = {**usual, **rest, **tables, **levels, "timesteps": timesteps}
        arrays = {name: np.asarray(table, np.float32) for name, table in all_tables.items()}
        return cls(**arrays, is_stochastic=bool(np.any(arrays["next_noise"])))

    @property
    def num_steps(self) -> int:
        return self.timesteps.shape[0]

    def starting_at(self, step: int) -> "Sampler":
        """Without the steps before `step`; the first of the others knows of no earlier estimate."""
        tables = {name: table[step:] if np.ndim(table) else table for name, table in vars(self).items()}
        for name, change in (("next_denoised", self.next_previous[step]), ("next_previous", -self.next_previous[step])):
            tables[name] = np.concatenate([tables[name][:1] + change, tables[name][1:]])
        return Sampler(**tables)

    def scale_model_input(self, sample: jax.Array, i: jax.Array | int) -> jax.Array:
        """What the model is shown at step `i` in place of `sample`."""
        return _at(self.input_scale, i) * sample

    def add_noise(self, clean: jax.Array, noise: jax.Array, i: jax.Array | int) -> jax.Array:
        """`clean` as noisy as a sample is before step `i`."""
        return _at(self.signal, i) * clean + _at(self.spread, i) * noise

    def step(
        self,
        model_output: jax.Array,
        i: jax.Array | int,
        sample: jax.Array,
        previous: jax.Array,
        noise: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The next sample, and the denoised estimate that the next step takes as `previous` (zeros at step 0).

        `noise` is standard normal, fresh at every step; only a stochastic sampler takes it.
        """
        denoised = _at(self.denoised_sample, i) * sample + _at(self.denoised_output, i) * model_output
        denoised = jnp.clip(denoised, -self.denoised_range, self.denoised_range)
        following = _at(self.next_sample, i) * sample + _at(self.next_output, i) * model_output
        following = following + _at(self.next_denoised, i) * denoised + _at(self.next_previous, i) * previous
        return following if noise is None else following + _at(self.next_noise, i) * noise, denoised


def denoised_factors(prediction_type: str, alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of x_t = alpha x_0 + sigma noise and of the model output in x_0, where alpha^2 + sigma^2 = 1."""
    if prediction_type == "epsilon":
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        return alpha, -sigma
    return np.zeros_like(alpha), np.ones_like(alpha)


def noise_factors(prediction_type: str, alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `denoised_factors`, of the noise."""
    if prediction_type == "epsilon":
        return np.zeros_like(alpha), np.ones_like(alpha)
    if prediction_type == "v_prediction":
        return sigma, alpha
    return 1 / sigma, -alpha / sigma


def _at(table: np.ndarray, i: jax.Array | int) -> jax.Array:
    return jnp.asarray(table)[i]
