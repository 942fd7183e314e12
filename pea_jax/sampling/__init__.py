"""From conditioning to pictures: noise schedules, samplers, and the pipeline that runs them."""

from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.sampling.schedulers import Sampler, make_sampler

__all__ = ["NoiseSchedule", "Sampler", "SchedulerConfig", "make_sampler"]
