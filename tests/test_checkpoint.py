import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pea_jax.checkpoint import Checkpoints
from pea_jax.distill.step import TrainState
from pea_jax.errors import PeaError


def new_state(width: int = 3) -> TrainState:
    return TrainState.create({"w": jnp.arange(float(width))}, optax.adam(1e-3), jax.random.key(5), ema=True)


def batches():
    return iter(grain.MapDataset.range(100).seed(0).shuffle().repeat().to_iter_dataset())


def test_state_and_place_in_the_data_come_back(tmp_path):
    iterator, state = batches(), new_state()
    seen = [next(iterator) for _ in range(4)]
    state.params["w"] = state.params["w"] + 1
    with Checkpoints(tmp_path / "checkpoints", every=4, keep=2) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(4, state, iterator)
    following = [next(iterator) for _ in range(5)]

    again = batches()
    with Checkpoints(tmp_path / "checkpoints", every=4, keep=2) as checkpoints:
        restored = checkpoints.restore(new_state(), again)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        assert a.dtype == b.dtype
    np.testing.assert_array_equal(restored.params["w"], state.params["w"])
    np.testing.assert_array_equal(jax.random.key_data(restored.key), jax.random.key_data(state.key))
    assert [next(again) for _ in range(5)] == following
    assert not set(seen) & set(following)


def test_only_due_steps_and_only_the_latest_are_kept(tmp_path):
    iterator, state = batches(), new_state()
    with Checkpoints(tmp_path / "checkpoints", every=2, keep=2) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, state, iterator, force=step == 7)
        assert checkpoints.latest_step == 7
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert steps == [6, 7]


def test_another_configuration_or_damage_stops_the_run(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", every=1, keep=1) as checkpoints:
        checkpoints.save(1, new_state(), batches())
    with (
        Checkpoints(tmp_path / "checkpoints", every=1, keep=1) as checkpoints,
        pytest.raises(PeaError, match=r"checkpoints/1: this checkpoint cannot be restored"),
    ):
        checkpoints.restore(new_state(width=4), batches())
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (
        Checkpoints(tmp_path / "checkpoints", every=1, keep=1) as checkpoints,
        pytest.raises(PeaError, match="cannot be restored"),
    ):
        checkpoints.restore(new_state(), batches())


def test_a_file_of_no_bytes_is_told_by_what_is_wrong_with_it(tmp_path):
    """As a machine that lost its power leaves them."""
    with Checkpoints(tmp_path / "checkpoints", every=1, keep=1) as checkpoints:
        checkpoints.save(1, new_state(), batches())
    (tmp_path / "checkpoints" / "1" / "state" / "_METADATA").write_bytes(b"")
    with (
        Checkpoints(tmp_path / "checkpoints", every=1, keep=1) as checkpoints,
        pytest.raises(PeaError, match=r"cannot be restored \(Expecting value: line 1 column 1"),
    ):
        checkpoints.restore(new_state(), batches())
