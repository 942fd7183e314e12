"""Samplers against PyTorch diffusers on the same noise and the same model."""

import itertools

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pea_jax.errors import PeaError
from pea_jax.sampling import NoiseSchedule, SchedulerConfig, make_sampler

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
TORCH = {"euler": diffusers.EulerDiscreteScheduler, "dpmsolver++": diffusers.DPMSolverMultistepScheduler}
SHAPE = (2, 4, 4, 3)


def fake_model(x, t, sin):
    """A closed-form model that is not linear in the sample and depends on the timestep."""
    return 0.7 * sin(1.3 * x + 0.002 * t) + 0.2 * x


def torch_samples(name: str, config: dict, steps: int, noise: np.ndarray) -> np.ndarray:
    scheduler = TORCH[name].from_config(config)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    sample = torch.from_numpy(noise) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = fake_model(scheduler.scale_model_input(sample, t), t, torch.sin)
        sample = scheduler.step(output, t, sample, return_dict=False)[0]
    return sample.numpy()


@jax.jit
def scanned(sampler, noise):
    def step(carry, i):
        sample, previous = carry
        output = fake_model(sampler.scale_model_input(sample, i), jnp.asarray(sampler.timesteps)[i], jnp.sin)
        return sampler.step(output, i, sample, previous), None

    start = noise * sampler.init_noise_sigma, jnp.zeros_like(noise)
    return jax.lax.scan(step, start, jnp.arange(sampler.num_steps))[0][0]


def check(name: str, config: dict, steps: int) -> None:
    noise = np.random.default_rng(steps).standard_normal(SHAPE, dtype=np.float32)
    sampler = make_sampler(name, SchedulerConfig.from_dict(config), steps)
    expected = torch_samples(name, config, steps, noise)
    assert np.isfinite(expected).all()
    error = np.abs(scanned(sampler, noise) - expected).max() / expected.std()
    assert error < 1e-4, f"{name}, {steps} steps, {config}: {error:.1e}"


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", TORCH)
def test_equals_diffusers(name, spacing, prediction):
    for steps, karras in itertools.product((5, 10, 25, 30), (False, True)):
        config = SDXL | {"timestep_spacing": spacing, "prediction_type": prediction, "use_karras_sigmas": karras}
        check(name, config, steps)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("steps", [1, 2, 14, 15])
@pytest.mark.parametrize(
    "options",
    [
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"final_sigmas_type": "sigma_min", "euler_at_final": True},
        {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True, "timestep_spacing": "leading"},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        {"trained_betas": np.linspace(0.001, 0.03, 200).tolist(), "num_train_timesteps": 200},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_equal_diffusers(name, steps, options):
    check(name, SDXL | options, steps)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_equal_diffusers_for_every_number_of_steps(name, spacing):
    config = SDXL | {"timestep_spacing": spacing}
    scheduler = TORCH[name].from_config(config)
    for steps in range(1, 101):
        scheduler.set_timesteps(steps)
        sampler = make_sampler(name, SchedulerConfig.from_dict(config), steps)
        np.testing.assert_allclose(sampler.timesteps, scheduler.timesteps.numpy(), rtol=1e-6)
        np.testing.assert_allclose(sampler.init_noise_sigma, float(scheduler.init_noise_sigma), rtol=1e-6)


def test_noise_and_velocity_equal_diffusers():
    rng = np.random.default_rng(0)
    sample, noise = rng.standard_normal((2, *SHAPE), dtype=np.float32)
    timesteps = np.array([0, 999])
    ddpm = diffusers.DDPMScheduler.from_config(SDXL)
    schedule = NoiseSchedule.from_config(SchedulerConfig.from_dict(SDXL))
    arguments = torch.from_numpy(sample), torch.from_numpy(noise), torch.from_numpy(timesteps)
    noisy = jax.jit(schedule.add_noise)(sample, noise, timesteps)
    np.testing.assert_allclose(noisy, ddpm.add_noise(*arguments).numpy(), atol=1e-6)
    velocity = jax.jit(schedule.velocity)(sample, noise, timesteps)
    np.testing.assert_allclose(velocity, ddpm.get_velocity(*arguments).numpy(), atol=1e-6)
    np.testing.assert_allclose(schedule.alphas_cumprod, ddpm.alphas_cumprod.numpy(), rtol=1e-5)


def test_perfect_model_returns_the_clean_sample():
    """With the true noise predicted at every step, any sampler must land on x_0, whatever the number of steps."""
    config = SchedulerConfig.from_dict(SDXL)
    clean, noise = np.random.default_rng(1).standard_normal((2, *SHAPE), dtype=np.float32)
    sampler = make_sampler("dpmsolver++", config, 7)
    alpha = np.sqrt(NoiseSchedule.from_config(config).alphas_cumprod[int(sampler.timesteps[0])])
    sample, previous = alpha * clean + np.sqrt(1 - alpha**2) * noise, jnp.zeros(SHAPE)
    for i in range(sampler.num_steps):
        sample, previous = sampler.step(noise, i, sample, previous)
    np.testing.assert_allclose(sample, clean, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("euler", "beta_schedule", "squaredcos_cap_v2"),
        ("euler", "prediction_type", "flow_prediction"),
        ("euler", "rescale_betas_zero_snr", True),
        ("euler", "use_beta_sigmas", True),
        ("euler", "interpolation_type", "log_linear"),
        ("euler", "timestep_type", "continuous"),
        ("euler", "sigma_max", 10.0),
        ("dpmsolver++", "algorithm_type", "sde-dpmsolver++"),
        ("dpmsolver++", "solver_order", 3),
        ("dpmsolver++", "solver_type", "heun"),
        ("dpmsolver++", "thresholding", True),
        ("dpmsolver++", "use_lu_lambdas", True),
    ],
)
def test_unsupported_values_are_named(name, field, value):
    with pytest.raises(PeaError, match=field):
        make_sampler(name, SchedulerConfig.from_dict(SDXL | {field: value}), 10)


def test_bad_arguments_are_named(tmp_path):
    config = SchedulerConfig.from_dict(SDXL)
    with pytest.raises(PeaError, match="ddim"):
        make_sampler("ddim", config, 10)
    for steps in (0, 1000):
        with pytest.raises(PeaError, match=f"steps={steps}"):
            make_sampler("euler", config, steps)
    with pytest.raises(PeaError, match=r"scheduler_config\.json"):
        SchedulerConfig.from_pretrained(tmp_path)


def test_reads_what_diffusers_writes(tmp_path):
    diffusers.DPMSolverMultistepScheduler.from_config(SDXL).save_pretrained(tmp_path / "scheduler")
    config = SchedulerConfig.from_pretrained(tmp_path)
    assert config.beta_schedule == "scaled_linear"
    assert make_sampler("dpmsolver++", config, 5).num_steps == 5
