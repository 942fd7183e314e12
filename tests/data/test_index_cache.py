import os
import pathlib

import numpy as np
import pytest

from pea_jax.data import index_cache
from pea_jax.data.index_cache import load_index


@pytest.fixture
def builds(monkeypatch):
    """The shards that were indexed anew, in order."""
    calls = []
    build = index_cache.build_index
    monkeypatch.setattr(index_cache, "build_index", lambda shard: calls.append(shard) or build(shard))
    return calls


def test_made_once_and_saved_beside_the_shard(shard, builds):
    made, read = load_index(shard), load_index(shard)
    assert builds == [shard]
    assert sorted(os.listdir(os.path.dirname(shard))) == ["a-000.tar", "a-000.tar.pea_index"]
    assert made.extensions == read.extensions
    for field in ("kind", "offset", "size", "first", "key_bytes", "key_end"):
        expected, found = getattr(made, field), getattr(read, field)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_others_may_read_it(shard):
    load_index(shard)
    assert os.stat(f"{shard}.pea_index").st_mode == os.stat(shard).st_mode


def test_made_again_when_the_shard_changes(shard, write_shard, make_sample, builds):
    assert len(load_index(shard).key_end) == 23
    write_shard("a-000.tar", {f"{number}": make_sample(number) for number in range(5)})
    assert len(load_index(shard).key_end) == 5
    stat = os.stat(shard)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    load_index(shard)
    load_index(shard)
    assert len(builds) == 3


def test_goes_to_the_cache_folder_when_the_shard_s_cannot_be_written(shard, tmp_path, builds):
    os.mkdir(f"{shard}.pea_index")  # stops even root
    for _ in range(2):
        assert len(load_index(shard, str(tmp_path / "cache")).key_end) == 23
    assert len(builds) == 1
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1
    assert sorted(os.listdir(tmp_path)) == ["a-000.tar", "a-000.tar.pea_index", "cache"]


def test_works_without_any_place_to_save(shard, builds):
    os.mkdir(f"{shard}.pea_index")
    assert len(load_index(shard).key_end) == len(load_index(shard, f"{shard}/cache").key_end) == 23
    assert len(builds) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: b"no index" * 20])
def test_a_damaged_index_is_made_again(shard, damage, builds):
    load_index(shard)
    path = pathlib.Path(f"{shard}.pea_index")
    path.write_bytes(damage(path.read_bytes()))
    assert len(load_index(shard).key_end) == 23
    load_index(shard)
    assert len(builds) == 2
