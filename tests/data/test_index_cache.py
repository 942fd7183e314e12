import os
import pathlib

import pytest

from pea_jax.data import index_cache, storage
from pea_jax.errors import PeaError


def load_index(shard: str, cache_dir: str | None = None) -> index_cache.ShardIndex:
    return index_cache.load_indices([storage.find_file(shard)], cache_dir)[0]


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """The shards that were indexed anew, in order."""
    calls = []
    build = index_cache.build_index
    monkeypatch.setattr(index_cache, "build_index", lambda shard: calls.append(shard.path) or build(shard))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return calls


def test_made_once_and_saved_beside_the_shard(shard, builds):
    made, read = load_index(shard), load_index(shard)
    assert builds == [shard]
    assert sorted(os.listdir(os.path.dirname(shard))) == ["a-000.tar", "a-000.tar.pea_index"]
    expected = index_cache.build_index(storage.find_file(shard))
    assert read == made and read.count == 23
    assert [read.row(number) for number in range(23)] == list(expected)


def test_others_may_read_it(shard):
    load_index(shard)
    assert os.stat(f"{shard}.pea_index").st_mode == os.stat(shard).st_mode


def test_made_again_when_the_shard_changes(shard, write_shard, make_sample, builds):
    assert load_index(shard).count == 23
    write_shard("a-000.tar", {f"{number}": make_sample(number) for number in range(5)})
    assert load_index(shard).count == 5
    stat = os.stat(shard)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    load_index(shard)
    load_index(shard)
    assert len(builds) == 3


@pytest.mark.parametrize("named", [True, False])
def test_goes_to_the_cache_folder_when_the_shard_s_cannot_be_written(shard, tmp_path, builds, named):
    os.mkdir(f"{shard}.pea_index")  # stops even root
    folder = tmp_path / ("cache" if named else "home/pea_jax")
    for _ in range(2):
        assert load_index(shard, str(folder) if named else None).count == 23
    assert len(builds) == 1
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1
    assert sorted(os.listdir(tmp_path)) == ["a-000.tar", "a-000.tar.pea_index", "cache" if named else "home"]


def test_works_without_any_place_to_save(shard, builds):
    os.mkdir(f"{shard}.pea_index")
    for _ in range(2):
        index = load_index(shard, f"{shard}/cache")
        assert index.count == 23 and index.row(22)["key"] == b"022"
    assert len(builds) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: b"no index" * 20])
def test_a_damaged_index_is_made_again(shard, damage, builds):
    load_index(shard)
    path = pathlib.Path(f"{shard}.pea_index")
    path.write_bytes(damage(path.read_bytes()))
    assert load_index(shard).count == 23
    load_index(shard)
    assert len(builds) == 2


def test_many_shards_at_once(write_shard, make_sample, builds, capsys):
    shards = [write_shard(f"{n}.tar", {f"{n}": make_sample(n) for n in range(n)}) for n in range(20)]
    files = [storage.find_file(shard) for shard in shards]
    for _ in range(2):
        assert [index.count for index in index_cache.load_indices(files)] == list(range(20))
    assert sorted(builds) == sorted(shards)
    assert "indexing shards" in capsys.readouterr().out
    pathlib.Path(shards[7]).write_bytes(b"")
    with pytest.raises(PeaError, match=r"/7\.tar: not a tar file"):
        index_cache.load_indices([storage.find_file(shard) for shard in shards])


def test_an_index_lost_during_the_run(shard, builds):
    index = load_index(shard)
    pathlib.Path(index.path).write_bytes(b"")
    with pytest.raises(PeaError, match=r"a-000\.tar\.pea_index: cut short since the run began"):
        index.row(3)
    pathlib.Path(index.path).unlink()
    with pytest.raises(PeaError, match=r"a-000\.tar\.pea_index: cannot be read \(No such file"):
        index.row(3)
