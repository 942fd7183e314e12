"""The whole loss against the published formula, written in PyTorch around PyTorch's own UNet."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from flax import nnx

from benchmarks import published
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.distill import losses
from pea_jax.distill.task import DistillationTask, LossWeights
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.weights import load_unet
from pea_jax.weights.torch_names import to_torch_names
from tests import tiny_sdxl
from tests.torch_oracle import nchw

BATCH, LENGTH, STATE, HIDDEN, POOLED, WIDTH = 4, 5, 12, 20, 16, 24


@pytest.fixture(scope="module")
def torch_unet() -> UNet2DConditionModel:
    return tiny_sdxl.random_unet(WIDTH, POOLED)


@pytest.fixture(scope="module")
def setting(torch_unet, tmp_path_factory):
    """A task, its frozen trees, an adapter's parameters and a batch of two native and two parallel samples."""
    folder = tmp_path_factory.mktemp("model")
    torch_unet.save_pretrained(folder / "unet")
    unet, unet_params = nnx.split(load_unet(folder))
    adapter, params = nnx.split(PEAdapter(AdapterDims(STATE, HIDDEN, POOLED, WIDTH), rngs=nnx.Rngs(1)))
    schedule = NoiseSchedule.from_config(
        SchedulerConfig(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    )
    task = DistillationTask(
        adapter=adapter,
        unet=unet,
        vae=None,
        student=None,
        teacher=None,
        schedule=schedule,
        scaling_factor=0.5,
        weights=LossWeights(),
        condition_dropout=0.5,
        noise_offset=0.5,
    )
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    frozen = dict(unet=unet_params, null_states=normal(1, LENGTH, STATE), null_prompt_embeds=normal(1, LENGTH, WIDTH))
    batch = dict(
        moments=normal(BATCH, 8, 8, 8),
        time_ids=jnp.asarray([[64, 48, 0, 8, 64, 64]] * BATCH, jnp.float32),
        native=jnp.asarray([1.0, 0.0, 1.0, 0.0]),
        states=normal(BATCH, LENGTH, STATE),
        prompt_embeds=normal(BATCH, LENGTH, WIDTH),
        pooled_prompt_embeds=normal(BATCH, POOLED),
    )
    return task, params, frozen, batch


def published_batch(frozen, batch, noisy, dropped) -> dict[str, torch.Tensor]:
    pictures = dict(sample=noisy.sample, target=noisy.target)
    named = {**batch, **frozen, "dropped": dropped, "timesteps": noisy.timesteps}
    del named["unet"], named["moments"]
    return {name: nchw(np.asarray(x)) for name, x in pictures.items()} | {
        name: torch.from_numpy(np.array(x)) for name, x in named.items()
    }


@pytest.mark.parametrize("hybrid", [True, False])
def test_loss_terms_and_gradient_are_the_published_ones(setting, torch_unet, hybrid):
    task, params, frozen, batch = setting
    task = dataclasses.replace(task, weights=LossWeights(hybrid=hybrid))
    key = jax.random.key(3)
    (loss, terms), gradient = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(params, frozen, batch, key)

    key_latents, key_noise, key_drop = jax.random.split(key, 3)
    noisy = task.noisy_sample(frozen, batch, key_latents, key_noise)
    dropped = jax.random.bernoulli(key_drop, task.condition_dropout, (BATCH,))
    assert 0 < int(dropped.sum()) < BATCH
    adapter = published.PublishedAdapter(STATE, HIDDEN, POOLED, WIDTH)
    adapter.load_state_dict({k: torch.tensor(v) for k, v in to_torch_names(params).items()}, strict=True)
    arrays = published_batch(frozen, batch, noisy, dropped)
    unet = copy.deepcopy(torch_unet)  # the hooks stay on it
    expected, expected_terms = published.loss(published.Denoiser(unet), adapter, arrays, hybrid=hybrid)
    expected.backward()

    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    assert terms.keys() == expected_terms.keys()
    for name, value in expected_terms.items():
        np.testing.assert_allclose(terms[name], value.item(), rtol=1e-4)
    for name, value in to_torch_names(gradient).items():
        expected_gradient = dict(adapter.named_parameters())[name].grad.numpy()
        np.testing.assert_allclose(value, expected_gradient, atol=1e-4 * np.abs(expected_gradient).max())


def test_the_teachers_pass_keeps_no_activations(setting):
    """The backward pass gets the student's activations, and of the teacher what it is compared with."""
    task, params, frozen, batch = setting

    def kept(weights: LossWeights) -> int:
        loss = dataclasses.replace(task, weights=weights).loss

        def residuals(params, frozen, batch):
            return jax.vjp(lambda p: loss(p, frozen, batch, jax.random.key(0))[0], params)[1]

        found = jax.tree.leaves(jax.eval_shape(residuals, params, frozen, batch))
        return sum(x.size * x.dtype.itemsize for x in found if x.ndim > 1 and x.shape[0] == BATCH)

    unet, noisy = nnx.merge(task.unet, frozen["unet"]), jnp.zeros((BATCH, 8, 8, 4))
    given = dict(text_embeds=batch["pooled_prompt_embeds"], time_ids=batch["time_ids"])
    outputs = jax.eval_shape(lambda: unet(noisy, jnp.ones(BATCH), batch["prompt_embeds"], **given))
    compared = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(outputs))
    alone, both = kept(LossWeights(output=0, features=0)), kept(LossWeights())
    assert alone > 10 * compared and both <= alone + 2 * compared


def test_identical_conditioning_gives_exactly_no_distillation_loss(setting):
    task, params, frozen, batch = setting
    student, _ = task.conditionings(params, frozen, batch, jax.random.key(0))
    noisy = task.noisy_sample(frozen, batch, jax.random.key(1), jax.random.key(2))
    terms = task.denoiser_terms(frozen, batch, noisy, student, student)
    assert float(jnp.abs(terms["output"]).max()) == 0
    assert float(jnp.abs(terms["features"]).max()) == 0
    assert float(terms["noise"].min()) > 0


def test_pooled_embedding_is_never_dropped_and_tokens_are_on_both_sides(setting):
    task, params, frozen, batch = setting
    everything = dataclasses.replace(task, condition_dropout=1.0)
    student, teacher = everything.conditionings(params, frozen, batch, jax.random.key(0))
    kept, _ = dataclasses.replace(task, condition_dropout=0.0).conditionings(params, frozen, batch, jax.random.key(0))
    null, _ = nnx.merge(task.adapter, params)(frozen["null_states"])
    np.testing.assert_array_equal(student.prompt_embeds, jnp.broadcast_to(null, student.prompt_embeds.shape))
    np.testing.assert_array_equal(teacher.prompt_embeds[0], frozen["null_prompt_embeds"][0])
    np.testing.assert_array_equal(student.pooled_prompt_embeds, kept.pooled_prompt_embeds)
    np.testing.assert_array_equal(teacher.pooled_prompt_embeds, batch["pooled_prompt_embeds"])


def test_regression_alone_never_calls_the_denoiser(setting):
    task, params, frozen, batch = setting
    regression = dataclasses.replace(task, weights=LossWeights(0.0, 0.0, 0.0, conditioning=1.0, hybrid=False))
    loss, terms = regression.loss(params, {**frozen, "unet": None}, batch, jax.random.key(0))
    assert terms.keys() == {"conditioning"}
    student, teacher = regression.conditionings(params, frozen, batch, jax.random.split(jax.random.key(0), 3)[2])
    expected = jnp.mean(jnp.square(student.prompt_embeds - teacher.prompt_embeds))
    expected += jnp.mean(jnp.square(student.pooled_prompt_embeds - teacher.pooled_prompt_embeds))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("pooled", [True, False])
def test_contrast_is_the_cross_entropy_of_the_right_text(setting, pooled):
    """As PyTorch computes it from all pairs of differences; the teacher gets no gradient."""
    task, params, frozen, batch = setting
    task = dataclasses.replace(task, condition_dropout=0.0)
    student, teacher = task.conditionings(params, frozen, batch, jax.random.key(0))
    if not pooled:
        student, teacher = (dataclasses.replace(side, pooled_prompt_embeds=None) for side in (student, teacher))

    def summary(side) -> torch.Tensor:
        parts = [side.prompt_embeds.mean(1), *([side.pooled_prompt_embeds] if pooled else [])]
        return torch.from_numpy(np.concatenate(parts, axis=1))

    ours, theirs = summary(student), summary(teacher)
    spread = torch.cdist(theirs, theirs).square().mean()
    logits = -losses.CONTRAST * torch.cdist(ours, theirs).square() / spread
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(BATCH), reduction="none")
    np.testing.assert_allclose(losses.conditioning_contrast(student, teacher), expected, rtol=1e-4)
    assert float(losses.conditioning_contrast(teacher, teacher).max()) < expected.min()
    gradient = jax.grad(lambda side: losses.conditioning_contrast(student, side).sum())(teacher)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(gradient))


def test_contrast_does_not_tell_equal_texts_apart(setting):
    task, params, frozen, batch = setting
    _, teacher = dataclasses.replace(task, condition_dropout=0.0).conditionings(
        params, frozen, batch, jax.random.key(0)
    )
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), teacher)
    np.testing.assert_allclose(losses.conditioning_contrast(twice, twice), 0, atol=0.01)  # apart: log 2
    one = jax.tree.map(lambda x: jnp.repeat(x[:1], BATCH, axis=0), teacher)
    value, gradient = jax.value_and_grad(lambda side: losses.conditioning_contrast(side, one).sum())(teacher)
    assert abs(value) < 1e-6 and not any(np.asarray(x).any() for x in jax.tree.leaves(gradient))


def test_contrast_is_asked_of_pairs_with_english_alone(setting):
    task, params, frozen, batch = setting
    contrast = dataclasses.replace(task, weights=LossWeights(0.0, 0.0, 0.0, contrast=2.0), condition_dropout=0.0)
    loss, terms = contrast.loss(params, {**frozen, "unet": None}, batch, jax.random.key(0))
    student, teacher = contrast.conditionings(params, frozen, batch, jax.random.key(0))
    values = losses.conditioning_contrast(student, teacher)
    np.testing.assert_allclose(terms["contrast"], (values[1] + values[3]) / BATCH, rtol=1e-6)
    np.testing.assert_allclose(loss, 2 * terms["contrast"], rtol=1e-6)
