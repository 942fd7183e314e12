"""What the denoiser sees and should say, against PyTorch diffusers."""

import diffusers
import jax
import numpy as np
import pytest
import torch

from pea_jax.distill.latents import forward_diffusion, offset_noise
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_timesteps():
    schedule = NoiseSchedule.from_config(SchedulerConfig.from_dict(SDXL))
    for timesteps, expected in ((None, set(range(1000))), (range(600, 604), {600, 601, 602, 603})):
        noisy = forward_diffusion(jax.random.key(0), np.zeros((20_000, 1, 1, 1)), schedule, 0.0, timesteps)
        assert set(noisy.timesteps.tolist()) == expected


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_target_is_what_the_model_predicts(prediction):
    """As diffusers' training scripts choose it."""
    latents = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype(np.float32)
    config, key = SDXL | {"prediction_type": prediction}, jax.random.key(1)
    noisy = forward_diffusion(key, latents, NoiseSchedule.from_config(SchedulerConfig.from_dict(config)), 0.5)
    noise = np.asarray(offset_noise(jax.random.split(key)[0], latents.shape, 0.5))
    arguments = [torch.from_numpy(np.array(x)) for x in (latents, noise, noisy.timesteps)]
    scheduler = diffusers.DDPMScheduler.from_config(config)
    targets = dict(epsilon=noise, v_prediction=scheduler.get_velocity(*arguments).numpy(), sample=latents)
    np.testing.assert_allclose(noisy.sample, scheduler.add_noise(*arguments).numpy(), atol=1e-5)
    np.testing.assert_allclose(noisy.target, targets[prediction], atol=1e-5)
