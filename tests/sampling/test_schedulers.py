"""Samplers against PyTorch diffusers on the same noise and the same model."""

import itertools
import json

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm
from safetensors.torch import save_file

from pea_jax.errors import PeaError
from pea_jax.sampling import NoiseSchedule, SchedulerConfig, make_sampler
from pea_jax.sampling.schedulers import SAMPLERS
from pea_jax.weights.locations import locate_base

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
TORCH = {name: getattr(diffusers, kind.class_name) for name, kind in SAMPLERS.items()}
KARRAS, PLAIN = ("dpmsolver++", "euler"), ("ddim", "euler_ancestral", "lcm")
SHAPE = (2, 4, 4, 3)


def fake_model(x, t, sin):
    """A closed-form model that is not linear in the sample and depends on the timestep."""
    return 0.7 * sin(1.3 * x + 0.002 * t) + 0.2 * x


@pytest.fixture
def same_noise(monkeypatch):
    """What the schedulers of diffusers draw, one after the other."""
    drawn = []
    for module in (scheduling_euler_ancestral_discrete, scheduling_lcm):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(drawn.pop(0)))
    return drawn


def torch_samples(name: str, config: dict, steps: int, noise: np.ndarray, clean: np.ndarray, start: int) -> np.ndarray:
    """Of diffusers, from noise alone, or from `clean` with noise."""
    scheduler = TORCH[name].from_config(config)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    timesteps = scheduler.timesteps[start:]
    sample = torch.from_numpy(noise) * scheduler.init_noise_sigma
    if start:
        sample = scheduler.add_noise(torch.from_numpy(clean), torch.from_numpy(noise), timesteps[:1])
    for t in timesteps:
        output = fake_model(scheduler.scale_model_input(sample, t), t, torch.sin)
        sample = scheduler.step(output, t, sample, return_dict=False)[0]
    return sample.numpy()


@jax.jit
def scanned(sampler, start, fresh):
    def step(carry, i):
        sample, previous = carry
        output = fake_model(sampler.scale_model_input(sample, i), jnp.asarray(sampler.timesteps)[i], jnp.sin)
        noise = jnp.asarray(fresh)[i] if sampler.is_stochastic else None
        return sampler.step(output, i, sample, previous, noise), None

    return jax.lax.scan(step, (start, jnp.zeros_like(start)), jnp.arange(sampler.num_steps))[0][0]


def check(name: str, config: dict, steps: int, same_noise: list, start: int = 0) -> None:
    noise, clean, *fresh = np.random.default_rng(steps).standard_normal((2 + steps, *SHAPE), dtype=np.float32)
    same_noise[:] = fresh
    sampler = make_sampler(name, SchedulerConfig.from_dict(config), steps, start=start)
    expected = torch_samples(name, config, steps, noise, clean, start)
    assert np.isfinite(expected).all()
    first = sampler.add_noise(clean, noise, 0) if start else noise * sampler.init_noise_sigma
    error = np.abs(scanned(sampler, first, np.stack(fresh[: sampler.num_steps])) - expected).max() / expected.std()
    assert error < 1e-4, f"{name}, {steps} steps from {start}, {config}: {error:.1e}"


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", KARRAS)
def test_equals_diffusers(name, spacing, prediction, same_noise):
    for steps, karras in itertools.product((5, 10, 25, 30), (False, True)):
        config = SDXL | {"timestep_spacing": spacing, "prediction_type": prediction, "use_karras_sigmas": karras}
        check(name, config, steps, same_noise)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", PLAIN)
def test_those_without_karras_sigmas_equal_diffusers(name, prediction, same_noise):
    """Karras sigmas in the file are another sampler's; what a file does not state is not the same for all."""
    config = SDXL | {"prediction_type": prediction, "use_karras_sigmas": True}
    if (name, prediction) == ("euler_ancestral", "sample"):
        with pytest.raises(PeaError, match="prediction_type='sample'"):
            make_sampler(name, SchedulerConfig.from_dict(config), 4)
        return
    spacings = [{"timestep_spacing": spacing} for spacing in ("leading", "trailing", "linspace")]
    clips = [{"clip_sample": False}, {"clip_sample": True, "clip_sample_range": 0.7, "set_alpha_to_one": False}]
    for steps, options in itertools.product((1, 2, 4, 25), [{}, *spacings, *clips]):
        check(name, config | options, steps, same_noise)


@pytest.mark.parametrize("name", TORCH)
def test_from_a_picture_equals_diffusers(name, same_noise):
    """The first step of those left has no earlier estimate."""
    for steps, start in ((4, 3), (10, 4), (25, 5)):
        check(name, SDXL | {"timestep_spacing": "trailing"}, steps, same_noise, start)


@pytest.mark.parametrize("name", TORCH)
def test_without_signal_at_the_end_equals_diffusers(name, same_noise):
    config = SDXL | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
    # In few steps diffusers' Euler, in float32, loses digits on its way down from sigma 4096: 1e-3 in a single one.
    for steps in (25, 50) if name.startswith("euler") else (1, 4, 25):
        check(name, config | {"prediction_type": "v_prediction"}, steps, same_noise)
    if name in ("ddim", "lcm"):
        with pytest.raises(PeaError, match="epsilon.*rescale_betas_zero_snr"):
            make_sampler(name, SchedulerConfig.from_dict(config), 4)


@pytest.mark.parametrize("name", KARRAS)
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
def test_options_equal_diffusers(name, steps, options, same_noise):
    check(name, SDXL | options, steps, same_noise)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("DDPMScheduler", [{}, {"variance_type": "fixed_large_log"}]),
        ("UniPCMultistepScheduler", [{"solver_type": "bh1"}, {"solver_type": "bh2"}]),
        ("PNDMScheduler", [{"skip_prk_steps": True}]),
        ("HeunDiscreteScheduler", [{"use_karras_sigmas": True}]),
    ],
)
@pytest.mark.parametrize("name", TORCH)
def test_the_file_of_another_class_equals_diffusers(name, kind, options, same_noise, tmp_path):
    """Base models come with any scheduler, and the one to draw with is chosen apart."""
    betas = {field: value for field, value in SDXL.items() if field.startswith("beta")}
    for option in options:
        getattr(diffusers, kind)(**betas, **option).save_pretrained(tmp_path)
        check(name, json.loads((tmp_path / "scheduler_config.json").read_text()), 20, same_noise)


def test_dpmsolver_from_the_file_of_deis():
    """diffusers 0.42 means to take its algorithm for its own, and then refuses the default of `final_sigmas_type`."""
    deis = {"algorithm_type": "deis", "solver_type": "logrho"}
    tables = [make_sampler("dpmsolver++", SchedulerConfig.from_dict(SDXL | options), 20) for options in (deis, {})]
    assert all(map(np.array_equal, *map(jax.tree.leaves, tables)))


@pytest.mark.parametrize("original", [50, 40, 7])
def test_what_a_consistency_model_was_distilled_on(original, same_noise):
    config = {"original_inference_steps": original, "timestep_scaling": 3.0}  # beta_start and others of its own
    for steps in (1, 4, 7):
        check("lcm", config, steps, same_noise)
    with pytest.raises(PeaError, match=f"steps={original + 1}: more than the {original} .*original_inference_steps"):
        make_sampler("lcm", SchedulerConfig.from_dict(config), original + 1)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_equal_diffusers_for_every_number_of_steps(name, spacing):
    config = SDXL | {"timestep_spacing": spacing}
    scheduler = TORCH[name].from_config(config)
    for steps in range(1, 51 if name == "lcm" else 101):
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
        ("euler", "rescale_betas_zero_snr", "maybe"),
        ("euler", "use_beta_sigmas", True),
        ("euler", "interpolation_type", "log_linear"),
        ("euler", "timestep_type", "continuous"),
        ("euler", "sigma_max", 10.0),
        ("dpmsolver++", "algorithm_type", "sde-dpmsolver++"),
        ("dpmsolver++", "solver_order", 3),
        ("dpmsolver++", "solver_type", "heun"),
        ("dpmsolver++", "thresholding", True),
        ("dpmsolver++", "use_lu_lambdas", True),
        ("dpmsolver++", "sigma_max", 10.0),
        ("ddim", "steps_offset", 900),
        ("ddim", "steps_offset", "1"),
        ("ddim", "thresholding", True),
        ("lcm", "thresholding", True),
        ("lcm", "original_inference_steps", 2000),
        ("from_config", "_class_name", "PNDMScheduler"),
    ],
)
def test_unsupported_values_are_named(name, field, value):
    with pytest.raises(PeaError, match=field):
        make_sampler(name, SchedulerConfig.from_dict(SDXL | {"use_karras_sigmas": True, field: value}), 10)


@pytest.mark.parametrize(
    "kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"]
)
def test_a_noise_schedule_without_betas_is_refused(kind, tmp_path):
    """As those of CosXL and of fine-tunes by flow matching; fields of an earlier scheduler may still be in the file."""
    getattr(diffusers, kind).from_config(SDXL).save_pretrained(tmp_path / "scheduler")
    with pytest.raises(PeaError, match=rf"scheduler_config\.json: .*_class_name='{kind}' is not supported"):
        SchedulerConfig.from_pretrained(tmp_path)


def test_bad_arguments_are_named(tmp_path):
    config = SchedulerConfig.from_dict(SDXL)
    with pytest.raises(PeaError, match="'heun'.*'euler_ancestral'.*'from_config'"):
        make_sampler("heun", config, 10)
    for steps in (0, 1000):
        with pytest.raises(PeaError, match=f"steps={steps}"):
            make_sampler("euler", config, steps)
    with pytest.raises(PeaError, match="use_karras_sigmas=True: the scheduler 'ddim' has no such option"):
        make_sampler("ddim", config, 10, use_karras_sigmas=True)
    with pytest.raises(PeaError, match="timestep_spacing='even' is not supported"):
        make_sampler("ddim", config, 10, timestep_spacing="even")
    with pytest.raises(PeaError, match=r"scheduler_config\.json"):
        SchedulerConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "no JSON object"),
        (b"{", "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError"),
        (b'{"trained_betas": 5}', "TypeError"),
        (b'{"trained_betas": [0.1, "x"]}', "trained_betas='x' must be a finite number"),
    ],
)
def test_a_broken_file_is_named(content, said, tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_bytes(content)
    with pytest.raises(PeaError, match=rf"scheduler_config\.json: .*{said}"):
        SchedulerConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", TORCH)
def test_reads_what_diffusers_writes(name, tmp_path):
    """`from_config` is the class of the file; options take the place of what it says."""
    TORCH[name].from_config(SDXL).save_pretrained(tmp_path / "scheduler")
    config = SchedulerConfig.from_pretrained(tmp_path)
    assert config.beta_schedule == "scaled_linear"
    assert all(map(np.array_equal, *map(jax.tree.leaves, [make_sampler(x, config, 5) for x in (name, "from_config")])))
    if name != "lcm":
        assert make_sampler(name, config, 5, timestep_spacing="trailing").timesteps[0] == 999


@pytest.mark.parametrize(
    ("marks", "wanted"),
    [
        ((), ("epsilon", False)),
        (("v_pred",), ("v_prediction", False)),
        (("v_pred", "ztsnr"), ("v_prediction", True)),
        (("edm_mean", "edm_std"), None),
        (("edm_vpred.sigma_max", "edm_vpred.sigma_min"), None),
    ],
)
def test_what_a_checkpoint_in_one_file_says_of_its_schedule(tmp_path, marks, wanted):
    """The folder of its base model predicts the noise; the marks are those that ComfyUI reads."""
    diffusers.EulerDiscreteScheduler.from_config(SDXL).save_pretrained(tmp_path / "scheduler")
    tensors = {"model.diffusion_model.out.2.bias": torch.ones(1)} | {name: torch.empty(0) for name in marks}
    save_file(tensors, tmp_path / "tuned.safetensors")
    base = locate_base(tmp_path / "tuned.safetensors", tmp_path)
    if wanted is None:
        with pytest.raises(PeaError, match=f"tuned.safetensors: .*EDM .{marks[0]} is in it"):
            SchedulerConfig.of_base(base)
        return
    config = SchedulerConfig.of_base(base)
    assert (config.prediction_type, config.rescale_betas_zero_snr) == wanted
    assert SchedulerConfig.of_base(locate_base(tmp_path)).prediction_type == "epsilon"
