import resource

import numpy as np
import pytest

from pea_jax.data import CachedSource, CacheWriter, divide, open_files
from pea_jax.data.tfds_source import TfdsSource
from pea_jax.data.to_tfds import convert
from pea_jax.errors import PeaError


@pytest.fixture
def allowed():
    """`allowed(count)` lets this process hold so many files open, and no more unless it asks."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_cache_of_more_parts_than_files_are_allowed(tmp_path, allowed):
    rows = range(400)
    cache = CacheWriter(tmp_path, {}, divide({(64, 64): rows}, 1))
    for part in cache.missing():
        cache.write(part, [{"native": np.float32(row)} for row in part.rows])
    allowed(300)
    source = CachedSource(tmp_path)
    assert [float(source[row]["native"]) for row in rows] == list(rows)


def test_a_tfds_folder_of_more_files_than_are_allowed(write_shard, make_sample, tmp_path, allowed):
    shard = write_shard("a.tar", {f"{number:03d}": make_sample(1) for number in range(400)})
    convert({"train": shard}, str(tmp_path / "out"), shard_size=1)
    allowed(300)
    source = TfdsSource(str(tmp_path / "out"))
    assert [source[row].key for row in range(400)] == [f"{number:03d}" for number in range(400)]


def test_what_the_system_does_not_allow(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    open_files.allow(3900, "cache")
    with pytest.raises(PeaError, match="cache: its 4000 files are held open .* this process may hold 4096 open"):
        open_files.allow(4000, "cache")
