"""Samplers by name; each equals what PyTorch diffusers' scheduler of that class computes step by step."""

from collections.abc import Callable
from typing import NamedTuple

from pea_jax.errors import PeaError
from pea_jax.sampling.ddim import ddim
from pea_jax.sampling.dpmsolver import dpmsolver
from pea_jax.sampling.euler import euler, euler_ancestral
from pea_jax.sampling.lcm import lcm
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.sampling.sampler import Sampler

__all__ = ["FROM_CONFIG", "SAMPLERS", "Sampler", "make_sampler"]

FROM_CONFIG = "from_config"  # the class that scheduler_config.json names


class Kind(NamedTuple):
    """A sampler: its class in diffusers, what makes its tables, and which options it has."""

    class_name: str
    make: Callable[[SchedulerConfig, int], Sampler]
    options: tuple[str, ...] = ()


SAMPLERS = {
    "dpmsolver++": Kind("DPMSolverMultistepScheduler", dpmsolver, ("use_karras_sigmas", "timestep_spacing")),
    "euler": Kind("EulerDiscreteScheduler", euler, ("use_karras_sigmas", "timestep_spacing")),
    "euler_ancestral": Kind("EulerAncestralDiscreteScheduler", euler_ancestral, ("timestep_spacing",)),
    "ddim": Kind("DDIMScheduler", ddim, ("timestep_spacing",)),
    "lcm": Kind("LCMScheduler", lcm),
}


def make_sampler(name: str, config: SchedulerConfig, steps: int, *, start: int = 0, **options: object) -> Sampler:
    """The tables of a sampler.

    Args:
      name: one of `SAMPLERS`, or "from_config" for the one that `config` names.
      config: of the base model.
      steps: from the noisiest on.
      start: how many of them are left out, where sampling starts from a picture.
      options: `use_karras_sigmas`, `timestep_spacing`, in place of what `config` says; None counts as not given.

    Raises:
      PeaError: there is no such sampler, or it does not have these steps, these options or what the config says.
    """
    name = _named_by(config) if name == FROM_CONFIG else name
    if name not in SAMPLERS:
        raise PeaError(f"unknown scheduler {name!r}; use one of {', '.join(map(repr, (*SAMPLERS, FROM_CONFIG)))}")
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in SAMPLERS[name].options:
            raise PeaError(f"{option}={given[option]!r}: the scheduler {name!r} has no such option; leave it out")
    # DPM-Solver++ divides the training timesteps into steps + 1 parts.
    if not 1 <= steps < NoiseSchedule.from_config(config).num_train_timesteps:
        raise PeaError(f"steps={steps}: must be at least 1 and less than the model's number of training timesteps")
    return SAMPLERS[name].make(config.stating(**given), steps).starting_at(start)


def _named_by(config: SchedulerConfig) -> str:
    for name, kind in SAMPLERS.items():
        if kind.class_name == config.class_name:
            return name
    raise PeaError(
        f"scheduler config: _class_name={config.class_name!r} is not supported; name another scheduler, of "
        f"{', '.join(SAMPLERS)}"
    )
