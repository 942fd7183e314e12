import os
import pathlib
import sys
import tarfile

import fsspec
import pytest

from pea_jax.data import WebDatasetSource, storage
from pea_jax.data.sources import open_source
from pea_jax.errors import BadSample, PeaError


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Empties the memory store, keeps indices in a folder of the test, and puts files in."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    yield lambda path, name: memory.pipe_file(name, pathlib.Path(path).read_bytes())
    memory.store.clear()


def test_remote_shards_give_the_samples_of_local_ones(write_shard, shard, make_sample, store, tmp_path):
    other = write_shard("a-001.tar", {"ключ" * 30: make_sample(77)}, tarfile.GNU_FORMAT)  # no plain header
    store(shard, "/bucket/a-000.tar")
    store(other, "/bucket/a-001.tar")
    local, remote = WebDatasetSource([shard, other]), WebDatasetSource("memory://bucket/a-{000..001}.tar")
    assert len(remote) == len(local) == 24
    for number in range(24):
        expected, sample = local[number], remote[number]
        assert (sample.key, sample.image, sample.record) == (expected.key, expected.image, expected.record)
    assert remote[23].shard == "memory://bucket/a-001.tar"
    assert len(list((tmp_path / "home").rglob("*.pea_index"))) == 2


def test_a_remote_index_is_made_once_and_again_after_a_change(write_shard, shard, make_sample, store, monkeypatch):
    from pea_jax.data import index_cache

    builds = []
    build = index_cache.build_index
    monkeypatch.setattr(index_cache, "build_index", lambda file: builds.append(file.path) or build(file))
    store(shard, "/bucket/a.tar")
    for _ in range(2):
        assert len(WebDatasetSource("memory://bucket/a.tar")) == 23
    assert len(builds) == 1
    store(write_shard("b.tar", {"x": make_sample(1)}), "/bucket/a.tar")
    source = WebDatasetSource("memory://bucket/a.tar")
    assert len(source) == 1 and len(builds) == 2
    fsspec.filesystem("memory").pipe_file("/bucket/a.tar", b"cut")
    with pytest.raises(BadSample, match="a.tar: sample x: the shard was cut"):
        source[0]
    fsspec.filesystem("memory").rm("/bucket/a.tar")
    with pytest.raises(PeaError, match="memory://bucket/a.tar: cannot be read"):
        source[0]


def test_a_remote_index_is_built_with_few_requests(write_shard, make_sample, store, monkeypatch):
    """Large members are skipped, the headers of small ones come many at a time."""
    from pea_jax.data import tar_index

    large = {"png": bytes(100_000), "json": b"{}"}
    small = {f"{n:03d}": make_sample(1) for n in range(30)}
    store(write_shard("a.tar", small | {f"x{n}": large for n in range(10)}), "/bucket/a.tar")
    requests = []
    read = storage.read
    monkeypatch.setattr(storage, "read", lambda *asked: requests.append(asked) or read(*asked))
    monkeypatch.setattr(tar_index, "_REMOTE_BLOCK", 1 << 15)
    assert len(tar_index.build_index(storage.find_file("memory://bucket/a.tar"))) == 40
    size = fsspec.filesystem("memory").size("/bucket/a.tar")
    assert len(requests) < 20 and sum(min(length, 1 << 15) for _, _, length in requests) < size / 2


def test_missing_remote_shards(shard, store):
    store(shard, "/bucket/a-000.tar")
    with pytest.raises(PeaError, match=r"memory://bucket/a-001\.tar: no such shard .*; in its folder: a-000\.tar"):
        WebDatasetSource("memory://bucket/a-{000..001}.tar")
    with pytest.raises(PeaError, match=r"memory://nowhere/a\.tar: no such shard .*; in its folder: none"):
        WebDatasetSource("memory://nowhere/a.tar")


@pytest.mark.parametrize(
    ("path", "library", "message"),
    [
        ("gs://b/a.tar", "gcsfs", r"gs://b: a library that reads gs:// is not installed; pip install 'pea_jax\[gcs\]'"),
        ("s3://b/a.tar", "s3fs", r"s3://b: a library that reads s3:// is not installed; pip install 'pea_jax\[s3\]'"),
        ("nothing://b/a.tar", "", "nothing://b: nothing:// is not known; use gs://, s3:// or a path"),
    ],
)
def test_a_missing_library_is_named(path, library, message, monkeypatch):
    if library:
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PeaError, match=message) as error:
        WebDatasetSource(path)
    assert "\n" not in str(error.value)


def test_an_error_of_the_store_is_one_line(store, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no\ncredentials")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "ls", fail)
    with pytest.raises(PeaError, match=r"^memory://b: cannot be read \(RuntimeError: no credentials\)$"):
        WebDatasetSource("memory://b/a.tar")


def test_a_remote_image_folder(make_sample, store):
    image = make_sample(7)["png"]
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/set/images/7.png", image)
    memory.pipe_file("/set/metadata.jsonl", b'{"file_name": "images/7.png", "caption_ru": "a"}\n')
    (sample,) = [open_source("memory://set")[0]]
    assert (sample.image, sample.key, sample.record) == (image, "images/7.png", {"caption_ru": "a"})


def test_local_files(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert storage.find_file(str(path)).size == 10
    assert storage.find_file(str(tmp_path)) is None and storage.find_file(str(path / "b")) is None
    assert storage.read(str(path), 8, 5) == b"89" and storage.read_all(str(path)) == b"0123456789"
    assert storage.list_names(str(tmp_path)) == ["a"] and storage.list_names(str(tmp_path / "none")) == []
    os.remove(path)
    with pytest.raises(PeaError, match="/a: cannot be read"):
        storage.read(str(path), 0, 1)
