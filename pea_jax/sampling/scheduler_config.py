"""What the `scheduler_config.json` of a diffusers pipeline says."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pea_jax.errors import PeaError
from pea_jax.models.config_fields import check_numbers, check_whole
from pea_jax.weights.config_files import read_config
from pea_jax.weights.locations import BaseModel
from pea_jax.weights.single_file import stated_schedule

FILE = "scheduler_config.json"
CHOICES: dict[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "rescale_betas_zero_snr": (True, False),
    "use_karras_sigmas": (True, False, None),
    "clip_sample": (True, False),
    "set_alpha_to_one": (True, False),
}
WHOLE = {"num_train_timesteps": 1, "steps_offset": 0, "original_inference_steps": 1}  # with the least that they may be
NUMBERS = ("beta_start", "beta_end", "clip_sample_range", "timestep_scaling")
# How the classes of diffusers begin that have a noise schedule without betas, as CosXL's.
WITHOUT_BETAS = ("EDM", "FlowMatch")


@dataclasses.dataclass(frozen=True)
class SchedulerConfig:
    """The fields of a diffusers `scheduler_config.json` that this package understands, with diffusers' defaults.

    One file describes every sampler: fields that belong to only one of them are ignored by the others, as
    `from_config` does in diffusers. `stated` has the names of those that the file has: where a class of diffusers has
    defaults of its own, they take the place of the others.
    """

    class_name: str | None = None
    stated: frozenset[str] = frozenset()
    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    use_karras_sigmas: bool | None = False
    final_sigmas_type: str = "zero"
    rescale_betas_zero_snr: bool = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    thresholding: bool = False
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
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    use_dynamic_shifting: bool = False
    lambda_min_clipped: float = -float("inf")
    variance_type: str | None = None
    # DDIMScheduler, LCMScheduler
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    set_alpha_to_one: bool = True
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "SchedulerConfig":
        """Raises `PeaError` for a value, or a class, that changes the noise schedule in a way not implemented here."""
        if str(kind := config.get("_class_name")).startswith(WITHOUT_BETAS):
            raise PeaError(
                f"scheduler config: _class_name={kind!r} is not supported: the model was trained with a noise schedule "
                "without betas"
            )
        known = {field.name for field in dataclasses.fields(cls)} - {"class_name", "stated"}
        values = {name: value for name, value in config.items() if name in known}
        if values.get("trained_betas") is not None:
            values["trained_betas"] = tuple(values["trained_betas"])
            for beta in values["trained_betas"]:
                check_numbers({"trained_betas": beta}, ["trained_betas"])
        result = cls(**values, class_name=config.get("_class_name"), stated=frozenset(values))
        result.require(CHOICES)
        check_numbers(vars(result), NUMBERS)
        for name, least in WHOLE.items():
            check_whole(vars(result), [name], least=least)
        return result

    @classmethod
    def from_pretrained(cls, folder: str | pathlib.Path, subfolder: str = "scheduler") -> "SchedulerConfig":
        """Read `folder/subfolder/scheduler_config.json`.

        Raises:
          PeaError: it is missing, broken, or refused by `from_dict`.
        """
        folder = pathlib.Path(folder) / subfolder
        if not (folder / FILE).is_file():
            raise PeaError(f"{folder / FILE}: not found; the folder must be a diffusers pipeline with a scheduler")
        return read_config(folder, cls.from_dict, FILE)

    @classmethod
    def of_base(cls, base: BaseModel) -> "SchedulerConfig":
        """That of a base model; what a checkpoint in one file says of itself stands above the folder's.

        Raises:
          PeaError: as `from_pretrained`, or the checkpoint's noise schedule is of another kind.
        """
        config = cls.from_pretrained(base.configs)
        return config.stating(**stated_schedule(base.weights)) if base.weights.is_file() else config

    def stating(self, **fields: Any) -> "SchedulerConfig":
        """The same with other values, as if the file had them.

        Raises:
          PeaError: for a value that no sampler has.
        """
        result = dataclasses.replace(self, **fields, stated=self.stated | frozenset(fields))
        result.require(CHOICES)
        return result

    def with_defaults(self, **fields: Any) -> "SchedulerConfig":
        """The same with other defaults, for what the file does not state."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        open_to = [name for name in fields if name not in self.stated and getattr(self, name) == usual[name]]
        return dataclasses.replace(self, **{name: fields[name] for name in open_to})

    def require(self, choices: Mapping[str, tuple[Any, ...]]) -> None:
        """Raises `PeaError` naming the first field whose value is not among the ones allowed."""
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise PeaError(f"scheduler config: {name}={value!r} is not supported (only {_listed(allowed)})")

    def require_signal(self, alphas_cumprod: np.ndarray) -> None:
        """Raises `PeaError` if the model predicts the noise where there is nothing else: of a picture that says
        nothing."""
        if self.prediction_type == "epsilon" and not alphas_cumprod.all():
            raise PeaError(
                "scheduler config: prediction_type='epsilon' is not supported with rescale_betas_zero_snr where a "
                "timestep is all noise; take another scheduler or timestep_spacing"
            )


def _listed(allowed: tuple[Any, ...]) -> str:
    return " or ".join(map(repr, allowed))
