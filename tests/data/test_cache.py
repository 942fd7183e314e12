import json
import os

import ml_dtypes
import numpy as np
import pytest

from pea_jax.data import CachedSource, read_manifest, write_cache
from pea_jax.errors import PeaError

MANIFEST = {"text_encoder": {"id": "e5", "context_length": 24}, "variants": 3, "buckets": ((64, 64),)}


def record(number: int, dtype=np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {
        "moments": random.normal(size=(4, 4, 6)).astype(dtype),
        "states": random.normal(size=(3, 5, 8)).astype(dtype),
        "time_ids": np.arange(6, dtype=np.int32),
        "native": np.float32(number % 2),
    }


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == np.shape(array), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "new" / "cache")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trip(folder, dtype):
    records = [record(number, dtype) for number in range(7)]
    write_cache(folder, iter(records), MANIFEST)
    source = CachedSource(folder)
    assert len(source) == 7
    for number in (6, 0, 3):
        assert_same(source[number], records[number])


def test_arrays_may_lie_in_any_order(folder):
    """safetensors alone writes these four wrongly, without a word."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = {
        "t": array.T,
        "step": array[:, ::2],
        "back": array[::-1],
        "broadcast": np.broadcast_to(array[0], (2, 3, 4)),
    }
    write_cache(folder, [views], {})
    assert_same(CachedSource(folder)[0], views)


def test_manifest(folder):
    write_cache(folder, [record(0)], MANIFEST)
    CachedSource(folder, MANIFEST)
    CachedSource(folder, {"text_encoder": {"id": "e5"}})
    assert read_manifest(folder) == {**json.loads(json.dumps(MANIFEST)), "samples": 1}


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"variants": 4}, "made with variants = 3, this run has 4"),
        ({"text_encoder": {"id": "bert"}}, "made with text_encoder.id = 'e5', this run has 'bert'"),
        ({"seed": 1}, "made with seed = None, this run has 1"),
    ],
)
def test_mismatch_names_the_field(folder, expected, message):
    write_cache(folder, [record(0)], MANIFEST)
    with pytest.raises(PeaError, match=f"{folder}: {message}") as error:
        CachedSource(folder, MANIFEST | expected)
    assert "\n" not in str(error.value)


def failing(count: int):
    yield from map(record, range(count))
    raise ValueError("stop")


def test_failure_leaves_nothing_behind(folder):
    with pytest.raises(ValueError, match="stop"):
        write_cache(folder, failing(3), MANIFEST)
    assert not os.path.exists(folder)
    with pytest.raises(PeaError, match=f"{folder}: no complete cache here .*; remove this folder"):
        CachedSource(folder)


def test_failure_leaves_an_older_cache_alone(folder):
    write_cache(folder, [record(5)], MANIFEST)
    with pytest.raises(ValueError, match="stop"):
        write_cache(folder, failing(3), {"variants": 9})
    assert sorted(os.listdir(folder)) == ["manifest.json", "samples.array_record"]
    assert_same(CachedSource(folder, MANIFEST)[0], record(5))


def test_a_crash_between_the_two_files_leaves_no_cache(folder, monkeypatch):
    """Never the old manifest beside the new records."""
    write_cache(folder, [record(5)], MANIFEST)
    replace = os.replace

    def crash(source, target):
        if str(target).endswith("manifest.json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_cache(folder, [record(6)], {"variants": 9})
    with pytest.raises(PeaError, match="no complete cache"):
        CachedSource(folder, MANIFEST)


def test_written_again(folder):
    write_cache(folder, [record(5)], MANIFEST)
    write_cache(folder, [record(6), record(7)], {"variants": 9})
    source = CachedSource(folder, {"variants": 9})
    assert len(source) == 2
    assert_same(source[0], record(6))


def test_records_and_manifest_belong_together(folder, tmp_path):
    write_cache(folder, [record(5)], MANIFEST)
    write_cache(str(tmp_path / "other"), [record(5), record(6)], MANIFEST)
    os.replace(tmp_path / "other" / "samples.array_record", f"{folder}/samples.array_record")
    with pytest.raises(PeaError, match="2 samples instead of 1; remove this folder"):
        CachedSource(folder)
    os.remove(f"{folder}/samples.array_record")
    with pytest.raises(PeaError, match="no complete cache"):
        CachedSource(folder)


def test_truncated_records(folder):
    write_cache(folder, [record(5)], MANIFEST)
    path = f"{folder}/samples.array_record"
    for size in (os.path.getsize(path) - 100, 10, 0):
        os.truncate(path, size)
        with pytest.raises(PeaError, match=f"{folder}: samples.array_record is damaged; remove this folder"):
            CachedSource(folder)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PeaError, match=r"file/cache: the cache cannot be written there \(Not a directory\)"):
        write_cache(str(tmp_path / "file" / "cache"), [], MANIFEST)


def test_other_dtypes_are_refused_when_written(folder):
    with pytest.raises(TypeError, match="has {'moments': 'float64', 'states': 'float64'}; take one of F32"):
        write_cache(folder, [record(0), record(0, np.float64)], MANIFEST)
