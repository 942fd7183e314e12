"""The forward diffusion process: how noisy a sample is at each training timestep."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pea_jax.errors import PeaError

CHOICES: dict[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "rescale_betas_zero_snr": (False,),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_karras_sigmas": (True, False, None),
}


@dataclasses.dataclass(frozen=True)
class SchedulerConfig:
    """The fields of a diffusers `scheduler_config.json` that this package understands, with diffusers' defaults.

    One file describes every sampler: fields that belong to only one of them are ignored by the others, as
    `from_config` does in diffusers.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    use_karras_sigmas: bool = False
    final_sigmas_type: str = "zero"
    rescale_betas_zero_snr: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    # EulerDiscreteScheduler
    interpolation_type: str = "linear"
    timestep_type: str = "discrete"
    sigma_min: float | None = None
    sigma_max: float | None = None
    # DPMSolverMultistepScheduler
    algorithm_type: str = "dpmsolver++"
    solver_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    thresholding: bool = False
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    use_dynamic_shifting: bool = False
    lambda_min_clipped: float = -float("inf")
    variance_type: str | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "SchedulerConfig":
        """Raises `PeaError` for a value that changes the noise schedule in a way not implemented here."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in config.items() if name in known}
        if values.get("trained_betas") is not None:
            values["trained_betas"] = tuple(values["trained_betas"])
        result = cls(**values)
        result.require(CHOICES)
        return result

    @classmethod
    def from_pretrained(cls, folder: str | pathlib.Path, subfolder: str = "scheduler") -> "SchedulerConfig":
        """Read `folder/subfolder/scheduler_config.json`."""
        path = pathlib.Path(folder) / subfolder / "scheduler_config.json"
        try:
            return cls.from_dict(json.loads(path.read_text()))
        except FileNotFoundError:
            raise PeaError(f"{path}: not found; the folder must be a diffusers pipeline with a scheduler") from None
        except json.JSONDecodeError as error:
            raise PeaError(f"{path}: not valid JSON ({error})") from None
        except PeaError as error:
            raise PeaError(f"{path}: {error}") from None

    def require(self, choices: Mapping[str, tuple[Any, ...]]) -> None:
        """Raises `PeaError` naming the first field whose value is not among the ones allowed."""
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise PeaError(f"scheduler config: {name}={value!r} is not supported (only {_listed(allowed)})")


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """`alphas_cumprod [T]` of the variance-preserving process x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise (DDPM)."""

    alphas_cumprod: np.ndarray
    prediction_type: str

    @classmethod
    def from_config(cls, config: SchedulerConfig) -> "NoiseSchedule":
        # Single-precision betas, as PyTorch diffusers rounds them: the model was trained on exactly these.
        alphas = np.float32(1) - _betas(config).astype(np.float32)
        alphas_cumprod = np.cumprod(alphas, dtype=np.float64).astype(np.float32)
        return cls(alphas_cumprod, config.prediction_type)

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def sigmas(self) -> np.ndarray:
        """`[T]` noise-to-signal ratio sqrt((1 - a_t) / a_t), increasing with t; float64."""
        alphas_cumprod = self.alphas_cumprod.astype(np.float64)
        return np.sqrt((1 - alphas_cumprod) / alphas_cumprod)

    def add_noise(self, sample: jax.Array, noise: jax.Array, timesteps: jax.Array) -> jax.Array:
        """Noisy `[B, ...]` samples at integer `timesteps [B]`."""
        signal, spread = self._factors(sample, timesteps)
        return signal * sample + spread * noise

    def velocity(self, sample: jax.Array, noise: jax.Array, timesteps: jax.Array) -> jax.Array:
        """What a v-prediction model is trained to return (Salimans and Ho 2022, appendix D)."""
        signal, spread = self._factors(sample, timesteps)
        return signal * noise - spread * sample

    def _factors(self, sample: jax.Array, timesteps: jax.Array) -> tuple[jax.Array, jax.Array]:
        alphas_cumprod = jnp.asarray(self.alphas_cumprod)[timesteps]
        alphas_cumprod = alphas_cumprod.reshape(-1, *(1,) * (sample.ndim - 1))
        return jnp.sqrt(alphas_cumprod), jnp.sqrt(1 - alphas_cumprod)


def _listed(allowed: tuple[Any, ...]) -> str:
    return " or ".join(map(repr, allowed))


def _betas(config: SchedulerConfig) -> np.ndarray:
    if config.trained_betas is not None:
        return np.asarray(config.trained_betas)
    if config.beta_schedule == "linear":
        return np.linspace(config.beta_start, config.beta_end, config.num_train_timesteps)
    return np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps) ** 2
