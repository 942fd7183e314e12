"""A disk that is full: one line, and the last good checkpoint whole. A limit on the size of files stands for it."""

import io
import resource
import signal
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pea_jax import command, report
from pea_jax.checkpoint import Checkpoints, saved_steps
from pea_jax.data import CacheWriter, divide
from pea_jax.data.to_tfds import convert
from pea_jax.errors import PeaError
from pea_jax.report import Report
from tests.test_processes import start_two


@pytest.fixture
def fill_disk():
    """A function after which no file grows beyond so many bytes, until the test ends."""
    (soft, hard), handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if limit is None else limit, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def place():
    return iter(grain.MapDataset.range(100).to_iter_dataset())


@pytest.mark.parametrize("heard", ["at the next save", "at the end"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, fill_disk, heard):
    state = {"w": jax.random.normal(jax.random.key(0), (200_000,))}  # orbax does not compress noise to nothing
    folder = tmp_path / "checkpoints"
    with pytest.raises(PeaError) as raised, Checkpoints(folder, every=1, keep=1) as checkpoints:
        checkpoints.save(1, state, place())
        while not saved_steps(folder):
            time.sleep(0.01)
        fill_disk(20_000)
        checkpoints.save(2, state, place())
        if heard == "at the next save":
            checkpoints.save(3, state, place())
    fill_disk(None)
    message = str(raised.value)
    assert "a checkpoint cannot be written" in message and "step 1 is the last complete one" in message
    assert "\n" not in message and "File too large" in message
    with Checkpoints(folder, every=1, keep=1, cleanup=True) as checkpoints:
        restored = checkpoints.restore({"w": jnp.zeros(200_000)}, place())
    np.testing.assert_array_equal(restored["w"], state["w"])
    assert [path.name for path in folder.iterdir()] == ["1"]  # the torn one is gone


@pytest.mark.parametrize("full", [0, 1])
def test_one_of_two_processes_that_cannot_write_its_part_ends_both(tmp_path, full):
    """Though one of them does not come to its next save, as it waits for the other."""
    code = f"""
import pathlib, resource, signal
import grain, jax
from pea_jax import command, mesh, processes
from pea_jax.checkpoint import Checkpoints
from pea_jax.errors import PeaError
def main():
    place = iter(grain.MapDataset.range(4).to_iter_dataset())
    draw = lambda: dict(w=jax.random.normal(jax.random.key(0), (200_000,)))
    state = jax.jit(draw, out_shardings=mesh.replicated(mesh.make_mesh()))()
    folder = pathlib.Path({str(tmp_path / "checkpoints")!r})
    with Checkpoints(folder, every=1, keep=2) as checkpoints:
        checkpoints.save(1, state, place)
        processes.wait_for_all("the first save")
        if jax.process_index() == {full}:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1))
        checkpoints.save(2, state, place)
        if jax.process_index() == 0:
            raise PeaError("no room for a picture either")
        processes.agree(0)
command.run(main)
"""
    both = start_two([sys.executable, "-c", code])
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [1, 1], said


def test_a_file_for_which_there_is_no_room(tmp_path, fill_disk):
    path = tmp_path / "picture.png"
    fill_disk(10)
    with (
        pytest.raises(PeaError, match="picture.png: cannot be written .File too large.; make room there, or name"),
        command.whole_file("--out", path) as partial,
    ):
        partial.write_bytes(bytes(100))
    assert not list(tmp_path.iterdir())


def test_a_cache_goes_on_where_the_disk_was_full(tmp_path, fill_disk):
    folder, parts = tmp_path / "cache", divide({(64, 64): range(4)}, 2)
    cache = CacheWriter(folder, {}, parts)
    small, large = ([{"states": np.zeros(size, np.float32)}] * 2 for size in (1, 50_000))
    cache.write(parts[0], small)
    fill_disk(100_000)
    with pytest.raises(PeaError) as raised:
        cache.write(parts[1], large)
    fill_disk(None)
    reason = "the cache cannot be written there (write() failed: File too large)"
    assert str(raised.value) == f"{folder}: {reason}; make room there or name another folder"
    assert CacheWriter(folder, {}, parts).missing() == [parts[1]]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "part-00000.array_record"}


def test_a_conversion_that_cannot_be_written(tmp_path, fill_disk):
    (tmp_path / "set").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "set" / "1.png")
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "1.png"}\n')
    fill_disk(100_000)
    with pytest.raises(PeaError, match=r"out: cannot be written \(write\(\) failed: File too large\); make room"):
        convert({"train": str(tmp_path / "set")}, str(tmp_path / "out"))


@pytest.mark.parametrize("what", ["metrics.jsonl", "tensorboard"])
def test_logs_that_cannot_be_written(tmp_path, monkeypatch, fill_disk, what):
    monkeypatch.setattr(report, "console", Console(file=io.StringIO()))  # pytest keeps the screen in a file
    with (
        pytest.raises(PeaError, match=f"{what}: cannot be written \\(File too large\\); make room there"),
        Report(tmp_path, first_step=0, num_steps=9, batch_size=1) as log,
    ):
        log.metrics(1, dict(loss=1.0))
        fill_disk(1 if what == "metrics.jsonl" else 1000)
        for step in range(2, 9):
            log.metrics(step, dict(loss=1.0))
            log.picture("samples", step, np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
