"""Indices of shards, kept on disk and made again when a shard's size or modification time changes.

The file is `SHARD.pea_index`, in safetensors, beside the shard or, where that cannot be written, in a cache folder.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import uuid

from absl import logging
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pea_jax.data.tar_index import TarIndex, build_index, shard_stat


def load_index(shard: str, cache_dir: str | None = None) -> TarIndex:
    """The index of a shard, from its file if that is up to date, else made and saved; raises as `build_index`."""
    stat = shard_stat(shard)
    stamp = f"1 {stat.st_size} {stat.st_mtime_ns}"  # the first number is the version of the format
    paths = _index_paths(shard, cache_dir)
    for path in paths:
        with contextlib.suppress(OSError, SafetensorError), safe_open(path, framework="numpy") as file:
            if file.metadata()["stamp"] == stamp:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                return TarIndex(extensions=file.metadata()["extensions"].split("\n"), **arrays)
    index = build_index(shard)
    _save(index, stamp, paths)
    return index


def _index_paths(shard: str, cache_dir: str | None) -> list[pathlib.Path]:
    path = pathlib.Path(shard).absolute()
    paths = [path.with_name(f"{path.name}.pea_index")]
    if cache_dir:
        folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:16]
        paths.append(pathlib.Path(cache_dir) / folder / paths[0].name)
    return paths


def _save(index: TarIndex, stamp: str, paths: list[pathlib.Path]) -> None:
    """Writes the index to the first of the paths that can be written; without any, the next run makes it again."""
    arrays = {field.name: getattr(index, field.name) for field in dataclasses.fields(index)[1:]}
    for path in paths:
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(save(arrays, {"stamp": stamp, "extensions": "\n".join(index.extensions)}))
            os.replace(temporary, path)
            return
        except OSError as error:
            logging.debug("%s: index not saved there (%s)", path, error)
            with contextlib.suppress(OSError):
                temporary.unlink()
    logging.warning("%s: the index could not be saved; give a cache folder that can be written", paths[0])
