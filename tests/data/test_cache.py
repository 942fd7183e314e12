import json
import os
import pathlib

import ml_dtypes
import numpy as np
import pytest

from pea_jax.data import CachedSource, CacheWriter, divide, read_manifest
from pea_jax.errors import BadSample, PeaError

MANIFEST = {"text_encoder": {"id": "e5", "context_length": 24}, "variants": 3}
SQUARE, TALL = (64, 64), (32, 64)


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


def writer(folder, manifest=MANIFEST, count: int = 7) -> CacheWriter:
    """Of `count` samples of one bucket, three in a part."""
    return CacheWriter(folder, manifest, divide({SQUARE: range(count)}, 3))


def write_all(cache: CacheWriter, dtype=np.float32) -> None:
    for part in cache.missing():
        cache.write(part, (record(row, dtype) for row in part.rows))


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "new" / "cache")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trip(folder, dtype):
    write_all(writer(folder), dtype)
    source = CachedSource(folder)
    assert len(source) == 7 and source.rows_by_bucket.keys() == {SQUARE}
    np.testing.assert_array_equal(source.rows_by_bucket[SQUARE], range(7))
    for number in (6, 0, 3):
        assert_same(source[number], record(number, dtype))


def test_buckets(folder):
    """Each part is of one bucket, and its rows are those of the data source."""
    rows = {SQUARE: np.array([0, 2, 3, 7]), TALL: np.array([1, 4, 5, 6])}
    parts = divide(rows, 3)
    assert [(part.bucket, list(part.rows)) for part in parts] == [
        (TALL, [1, 4, 5]),
        (TALL, [6]),
        (SQUARE, [0, 2, 3]),
        (SQUARE, [7]),
    ]
    write_all(CacheWriter(folder, MANIFEST, parts))
    source = CachedSource(folder)
    for bucket, numbers in rows.items():
        for place, number in zip(source.rows_by_bucket[bucket], numbers, strict=True):
            assert_same(source[place], record(number))


def test_bad_samples_are_left_out(folder):
    cache = writer(folder)
    for part in cache.missing():
        cache.write(part, (record(row) for row in part.rows if row != 1))
    source = CachedSource(folder)
    assert len(source) == 6
    assert_same(source[1], record(2))


def test_processes_share_the_parts(folder):
    shares = [[part.number for part in writer(folder).missing(process, 2)] for process in range(2)]
    assert shares == [[0, 2], [1]]


def test_what_was_stopped_goes_on_with_the_missing_parts(folder):
    cache = writer(folder)
    first, *others = cache.missing()
    cache.write(first, map(record, first.rows))
    with pytest.raises(PeaError, match=r"2 of 3 parts are missing, the first part-00001.array_record; .*precompute"):
        CachedSource(folder, MANIFEST)
    again = writer(folder)
    assert [part.number for part in again.missing()] == [part.number for part in others]
    write_all(again)
    assert len(CachedSource(folder, MANIFEST)) == 7


def test_what_was_killed_inside_a_part_leaves_nothing_for_good(folder):
    os.makedirs(folder)
    open(f"{folder}/part-00001.array_record.0123", "wb").close()
    write_all(writer(folder))
    assert sorted(os.listdir(folder)) == ["manifest.json", *(f"part-0000{n}.array_record" for n in range(3))]


def test_two_runs_may_make_the_same_part_at_once(folder):
    first, second = writer(folder), writer(folder)
    part = first.missing()[1]

    def records():
        yield record(part.rows[0])
        second.write(part, map(record, part.rows))  # by a run that was started meanwhile
        yield from map(record, part.rows[1:])

    first.write(part, records())
    write_all(writer(folder))
    assert len(CachedSource(folder, MANIFEST)) == 7
    assert sorted(os.listdir(folder)) == ["manifest.json", *(f"part-0000{n}.array_record" for n in range(3))]


def test_arrays_may_lie_in_any_order(folder):
    """safetensors alone writes these four wrongly, without a word."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = {
        "t": array.T,
        "step": array[:, ::2],
        "back": array[::-1],
        "broadcast": np.broadcast_to(array[0], (2, 3, 4)),
    }
    cache = writer(folder, count=1)
    cache.write(cache.missing()[0], [views])
    assert_same(CachedSource(folder)[0], views)


def test_what_another_has_begun_meanwhile_is_not_mixed_with(folder):
    """Both find an empty folder, and what the second has made fits neither manifest nor parts of the first."""
    first, second = writer(folder), writer(folder, MANIFEST | {"variants": 1})
    part = second.missing()[0]
    write_all(first)
    with pytest.raises(PeaError, match="made with variants = 3, this run has 1"):
        second.write(part, (record(row + 100) for row in part.rows))
    assert_same(CachedSource(folder)[0], record(0))
    assert sorted(os.listdir(folder)) == ["manifest.json", *(f"part-0000{n}.array_record" for n in range(3))]


def test_manifest(folder):
    write_all(writer(folder))
    CachedSource(folder, MANIFEST)
    CachedSource(folder, {"text_encoder": {"id": "e5"}})
    assert read_manifest(folder) == {**MANIFEST, "parts": [[64, 64, 3], [64, 64, 3], [64, 64, 1]]}


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"variants": 4}, "made with variants = 3, this run has 4"),
        ({"text_encoder": {"id": "bert"}}, "made with text_encoder.id = 'e5', this run has 'bert'"),
        ({"seed": 1}, "made with seed = None, this run has 1"),
    ],
)
def test_mismatch_names_the_field(folder, expected, message):
    write_all(writer(folder))
    for refused in (CachedSource, writer):
        with pytest.raises(PeaError, match=f"{folder}: {message}") as error:
            refused(folder, MANIFEST | expected)
        assert "\n" not in str(error.value)


def test_other_data_are_refused(folder):
    write_all(writer(folder))
    with pytest.raises(PeaError, match="made with parts = 7 samples of 64x64, this run has 8 samples of 64x64; remove"):
        writer(folder, count=8)
    with pytest.raises(PeaError, match="this run has 2 samples of 32x64, 5000 samples of 64x64; remove"):
        CacheWriter(folder, MANIFEST, divide({SQUARE: range(5000), TALL: range(2)}, 3))


def test_failure_leaves_nothing_behind(folder):
    def failing():
        yield record(0)
        raise ValueError("stop")

    cache = writer(folder)
    with pytest.raises(ValueError, match="stop"):
        cache.write(cache.missing()[0], failing())
    assert not os.path.exists(folder)
    with pytest.raises(PeaError, match=f"{folder}: no cache here .*precompute makes one"):
        CachedSource(folder)


def test_no_manifest(folder):
    write_all(writer(folder))
    os.truncate(f"{folder}/manifest.json", 10)
    with pytest.raises(PeaError, match="no cache here"):
        CachedSource(folder)


def test_truncated_part(folder):
    write_all(writer(folder))
    path = f"{folder}/part-00001.array_record"
    for size in (os.path.getsize(path) - 100, 10, 0):
        os.truncate(path, size)
        with pytest.raises(PeaError, match=f"{path}: damaged; remove it"):
            CachedSource(folder)


def test_a_part_that_is_damaged_inside(folder):
    """Its samples are bad ones, the others are read; what a machine that lost its power had not written is zero."""
    write_all(writer(folder))
    path = pathlib.Path(folder) / "part-00001.array_record"
    data = bytearray(path.read_bytes())
    middle = data.index(b"moments")
    data[middle : middle + 100] = bytes(100)
    path.write_bytes(data)
    source = CachedSource(folder)
    with pytest.raises(BadSample, match=f"{path}: damaged, sample 3 of the cache cannot be read; remove the file"):
        source[3]
    assert_same(source[2], record(2))
    assert_same(source[6], record(6))


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    cache = writer(tmp_path / "file" / "cache")
    with pytest.raises(PeaError, match=r"file/cache: the cache cannot be written there \(Not a directory\)"):
        write_all(cache)


def test_the_manifest_is_json(folder):
    write_all(writer(folder, {**MANIFEST, "buckets": ((64, 64),)}))
    assert json.loads(json.dumps(read_manifest(folder)))["buckets"] == [[64, 64]]
    CachedSource(folder, {"buckets": ((64, 64),)})
