"""Indices of shards, kept on disk and made again when a shard changes.

The file is `SHARD.pea_index`, in safetensors, beside a local shard or, where that cannot be written and for remote
shards, in a cache folder. A run holds no index in memory: a sample's row is read from the file when it is wanted.
"""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pea_jax.data import kept_files, storage
from pea_jax.data.storage import File
from pea_jax.data.tar_index import build_index, row_dtype
from pea_jax.errors import PeaError
from pea_jax.report import track

_VERSION = 2  # of the format
_THREADS = 16


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """The samples of one shard: in the file `path`, or in `rows` if no file could be written."""

    shard: File
    count: int
    key_size: int
    path: str
    start: int  # of the first row in the file
    rows: np.ndarray | None = None

    def row(self, number: int) -> np.void:
        """Of `row_dtype`.

        Raises:
          PeaError: the file has vanished.
        """
        if self.rows is not None:
            return self.rows[number]
        dtype = row_dtype(self.key_size)
        data = storage.read(self.path, self.start + number * dtype.itemsize, dtype.itemsize)
        if len(data) < dtype.itemsize:
            raise PeaError(f"{self.path}: cut short since the run began; start again, and it is made again")
        return np.frombuffer(data, dtype)[0]


def load_indices(shards: Sequence[File], cache_dir: str | None = None) -> list[ShardIndex]:
    """The index of each shard, from its file if that is up to date, else made and saved.

    Raises:
      PeaError: as `build_index`; or a sample lacks its image or its record.
    """
    indices = [_load(shard, cache_dir) for shard in shards]
    missing = [number for number, index in enumerate(indices) if index is None]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(_make, shards[number], cache_dir) for number in missing]
        try:
            bar = track(missing, "indexing shards") if len(missing) > 1 else missing
            for number, future in zip(bar, futures, strict=True):
                indices[number] = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [index for index in indices if index is not None]


def _load(shard: File, cache_dir: str | None) -> ShardIndex | None:
    for path in _places(shard, cache_dir):
        with contextlib.suppress(OSError, SafetensorError), safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            if metadata["stamp"] == _stamp(shard):
                return _on_disk(shard, path, int(metadata["count"]), int(metadata["key_size"]))
    return None


def _make(shard: File, cache_dir: str | None) -> ShardIndex:
    rows = build_index(shard)
    _check(rows, shard.path)
    key_size = rows.dtype["key"].itemsize
    metadata = {"stamp": _stamp(shard), "count": str(len(rows)), "key_size": str(key_size)}
    data = save({"rows": rows.view(np.uint8)}, metadata)
    path = kept_files.write(_places(shard, cache_dir), data)
    return _on_disk(shard, path, len(rows), key_size) if path else ShardIndex(shard, len(rows), key_size, "", 0, rows)


def _on_disk(shard: File, path: pathlib.Path, count: int, key_size: int) -> ShardIndex:
    start = path.stat().st_size - count * row_dtype(key_size).itemsize  # the rows are the file's last bytes
    return ShardIndex(shard, count, key_size, str(path), start)


def _places(shard: File, cache_dir: str | None) -> list[pathlib.Path]:
    return kept_files.places(shard.path, ".pea_index", cache_dir)


def _stamp(shard: File) -> str:
    return f"{_VERSION} {shard.stamp}"


def _check(rows: np.ndarray, shard: str) -> None:
    for field, what in (("image_offset", ".png or .jpg or .jpeg or .webp"), ("record_offset", ".json")):
        lacking = rows["key"][rows[field] < 0]
        if len(lacking):
            key = lacking[0].decode(errors="backslashreplace")
            raise PeaError(
                f"{shard}: sample {key} has no {what} ({len(lacking)} such samples); the files of a sample stand one "
                "after the other (tar --sort=name) and are called the same up to the first dot"
            )
