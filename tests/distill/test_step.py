"""The step around the loss: what it changes, and that it computes the same on one device and on eight."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pea_jax.distill.step import TrainState, make_optimizer, make_train_step

SCHEDULE = dict(learning_rate=1e-2, end_learning_rate=1e-3, warmup_steps=2, decay_steps=12)


class QuadraticTask:
    """Stands in for a `DistillationTask`: pulls the parameters to the batch, with noise from the key."""

    mesh = None

    def loss(self, params, frozen, batch, key):
        noise = 0.1 * jax.random.normal(key, params["w"].shape)
        error = jnp.mean(jnp.square(params["w"] * frozen["scale"] - jnp.mean(batch, axis=0) + noise))
        return error, dict(output=error)


class SamplesTask:
    """A loss that is a mean over samples, as those of a `DistillationTask` are."""

    mesh = None

    def loss(self, params, frozen, batch, key):
        error = jnp.mean(jnp.square(batch["x"] @ params["w"] - batch["y"]))
        return 3 * error, dict(output=error)


def step_in_parts(microbatches: int):
    """The state and the metrics after one step on 12 samples."""
    rng = np.random.default_rng(0)
    batch = {name: rng.normal(size=(12, *shape)).astype(np.float32) for name, shape in dict(x=(3,), y=()).items()}
    optimizer, schedule = make_optimizer(**SCHEDULE | dict(warmup_steps=0), clip_norm=0.5)
    state = TrainState.create({"w": jnp.ones(3)}, optimizer, jax.random.key(0), ema=False)
    step = make_train_step(SamplesTask(), optimizer, schedule, microbatches=microbatches)
    return jax.jit(step)(state, None, batch)


def run(steps: int, state: TrainState | None = None, ema: float = 0.0, **options):
    optimizer, schedule = make_optimizer(**SCHEDULE, **options)
    if state is None:
        state = TrainState.create({"w": jnp.ones(3)}, optimizer, jax.random.key(0), ema=bool(ema))
    step = jax.jit(make_train_step(QuadraticTask(), optimizer, schedule, ema))
    history = []
    for _ in range(steps):
        state, metrics = step(state, {"scale": jnp.float32(2.0)}, jnp.full((4, 3), 5.0))
        history.append(metrics)
    return state, history


def test_learning_rate_warms_up_and_decays_to_the_end():
    _, schedule = make_optimizer(**SCHEDULE)
    np.testing.assert_allclose(
        [schedule(i) for i in (0, 1, 2, 7, 12, 50)], [0, 5e-3, 1e-2, 5.5e-3, 1e-3, 1e-3], rtol=1e-5
    )


def test_every_step_draws_other_noise_and_reports_its_terms():
    _, history = run(2)
    assert {"loss", "output", "gradient_norm", "learning_rate"} == history[0].keys()
    assert float(history[0]["learning_rate"]) == 0  # nothing moved between the two
    assert float(history[0]["loss"]) != float(history[1]["loss"])


def test_two_halves_are_bit_equal_to_the_whole():
    whole, _ = run(6, ema=0.9)
    half, _ = run(3, ema=0.9)
    again, _ = run(3, state=half, ema=0.9)
    for a, b in zip(
        jax.tree.leaves((whole.params, whole.ema)), jax.tree.leaves((again.params, again.ema)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert int(again.step) == 6


def test_update_is_adamw_of_the_clipped_gradient():
    state, history = run(3, clip_norm=0.5)
    reference = {"w": jnp.ones(3)}
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(make_optimizer(**SCHEDULE)[1], weight_decay=0.0)
    )
    opt_state = optimizer.init(reference)
    for number in range(3):
        key = jax.random.fold_in(jax.random.key(0), number)
        loss = lambda p, key=key: QuadraticTask().loss(p, {"scale": 2.0}, jnp.full((4, 3), 5.0), key)[0]  # noqa: E731
        gradient = jax.grad(loss)(reference)
        np.testing.assert_allclose(history[number]["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)
        updates, opt_state = optimizer.update(gradient, opt_state, reference)
        reference = optax.apply_updates(reference, updates)
    np.testing.assert_allclose(state.params["w"], reference["w"], rtol=1e-6)


@pytest.mark.parametrize("microbatches", [2, 3, 12])
def test_a_batch_in_parts_gives_the_step_of_the_whole(microbatches: int):
    """Clipping too is of the whole gradient, and there is one update."""
    whole, in_parts = step_in_parts(1), step_in_parts(microbatches)
    assert jax.tree.structure(whole) == jax.tree.structure(in_parts)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(in_parts), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_each_part_draws_noise_of_its_own():
    class Noise:
        mesh = None

        def loss(self, params, frozen, batch, key):
            drawn = jax.random.normal(key, ())
            return drawn * jnp.sum(params["w"]), dict(output=drawn)

    optimizer, schedule = make_optimizer(**SCHEDULE)
    state = TrainState.create({"w": jnp.ones(3)}, optimizer, jax.random.key(0), ema=False)
    _, metrics = make_train_step(Noise(), optimizer, schedule, microbatches=2)(state, None, jnp.ones((2, 3)))
    key = jax.random.fold_in(state.key, 0)
    drawn = [jax.random.normal(jax.random.fold_in(key, part), ()) for part in range(2)]
    assert drawn[0] != drawn[1]
    np.testing.assert_allclose(metrics["output"], np.mean(drawn), rtol=1e-5)


def test_average_follows_and_is_what_is_exported():
    state, _ = run(5, ema=0.9)
    assert state.exported is state.ema
    assert np.all(np.asarray(state.ema["w"]) != np.asarray(state.params["w"]))
    without, _ = run(5)
    assert without.ema is None and without.exported is without.params


def test_eight_devices_give_the_loss_and_gradient_of_one(tmp_path):
    """Also with frozen weights in 8 bits that are split over them."""
    command = [sys.executable, "-m", "tests.distill.eight_devices", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
