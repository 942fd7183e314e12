"""The iterator of batches: its place, its counter, and what becomes of threads that hang or end."""

import itertools
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from pea_jax.checkpoint import Checkpoints
from pea_jax.data.batches import Batches
from pea_jax.data.loader import make_loader
from pea_jax.errors import BadSample, PeaError, Stalled


class Source:
    """24 numbers; reading number 7 does what is asked."""

    def __init__(self, seven=lambda: 7):
        self.seven = seven

    def __len__(self) -> int:
        return 24

    def __getitem__(self, number: int) -> int:
        return self.seven() if number == 7 else number


def bad():
    raise BadSample("7 is bad")


def batches(seven=lambda: 7, timeout=60.0, samples="", **hosts) -> Batches:
    loader = make_loader(
        Source(seven),
        lambda number, rng: {"number": np.int64(number)},
        batch_size=4,
        seed=0,
        num_threads=2,
        max_bad_rate=0.5,
        **hosts,
    )
    return Batches(loader, timeout=timeout, samples=samples)


def numbers(iterator: Batches, count: int) -> list[list[int]]:
    return [batch["number"].tolist() for batch in itertools.islice(iterator, count)]


def test_rows_and_skipped_are_taken_out():
    iterator = batches(bad)
    batch = next(iterator)
    assert batch.keys() == {"number"} and iterator.rows.tolist() == batch["number"].tolist()
    numbers(iterator, 17)
    assert iterator.skipped >= 3


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_place_and_counter_come_back_on_any_number_of_hosts(tmp_path, hosts):
    """grain's own files name the number of processes, and none but that many can read them."""
    iterator = batches(bad)
    numbers(iterator, 8)
    state = {"w": np.zeros(2)}
    with Checkpoints(tmp_path, every=1, keep=1) as checkpoints:
        checkpoints.save(8, state, iterator)
    skipped, following = iterator.skipped, numbers(iterator, 5)
    resumed = [batches(bad, process_index=index, process_count=hosts) for index in range(hosts)]
    for each in resumed:
        each.set_state({"next_index": 0, "skipped": 0})
        with Checkpoints(tmp_path, every=1, keep=1) as checkpoints:
            checkpoints._checkpointer.load_checkpointables(8, dict(data=each))
        assert each.skipped == skipped
    shares = [numbers(each, 5) for each in resumed]
    assert [[n for part in parts for n in part] for parts in zip(*shares, strict=True)] == following


def test_a_place_in_other_data_is_refused(tmp_path):
    """A shard that was replaced while the run stood still; the checkpoints of before this rule know of no data."""
    state = {"w": jnp.zeros(2)}
    with Checkpoints(tmp_path, every=1, keep=1) as checkpoints:
        checkpoints.save(8, state, batches(samples="of the run"))
    with (
        Checkpoints(tmp_path, every=1, keep=1) as checkpoints,
        pytest.raises(PeaError, match=r"/8: the samples of config.data.train are not those"),
    ):
        checkpoints.restore(state, batches(samples="others"))
    batches(samples="of the run").set_state({"next_index": 0, "skipped": 0})


def test_a_read_that_hangs_is_an_error_within_the_limit():
    released = threading.Event()
    iterator = batches(lambda: released.wait(60), timeout=0.5)
    start = time.monotonic()
    with pytest.raises(Stalled, match=r"no batch within config.data.timeout=0.5 seconds: reading hangs"):
        numbers(iterator, 6)
    assert time.monotonic() - start < 5
    released.set()
    iterator.close()


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
def test_a_thread_that_ends_is_an_error(ending):
    def end():
        raise ending

    with pytest.raises(PeaError, match=f"a thread that reads samples has ended \\({ending.__name__}\\)"):
        numbers(batches(end), 6)


def test_any_other_exception_surfaces_as_it_is():
    def divide():
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        numbers(batches(divide), 6)


HANGING = """
import sys, threading
from pea_jax import command
from tests.data.test_batches import batches, numbers
command.run(lambda: numbers(batches(lambda: threading.Event().wait(), timeout=1), 6))
"""


def test_the_process_ends_though_a_thread_hangs():
    result = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and result.stderr.startswith("error: no batch within"), result.stderr
    assert result.stderr.count("\n") == 1
