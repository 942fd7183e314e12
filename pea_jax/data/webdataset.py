"""Image-text samples in webdataset tar shards, by number, read where they lie.

A sample is an image (`png`, `jpg`, `jpeg`, `webp`) and a `json` record with `caption_<language>` and, if there are any,
`keywords_<language>`, `native` and `family`.
"""

import json
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from pea_jax.data.index_cache import load_index
from pea_jax.data.samples import Sample
from pea_jax.data.tar_index import TarIndex, key_at
from pea_jax.errors import PeaError

IMAGE = ("png", "jpg", "jpeg", "webp")
RECORD = ("json",)


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern stands for: `a-{08..10}.tar` (zeros kept) and `{cat,dog}.tar`, side by side or alone."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    parts = words.split(",") if words else [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    tails = expand_braces(pattern[match.end() :])
    return [pattern[: match.start()] + part + tail for part in parts for tail in tails]


def find_shards(patterns: str | Sequence[str]) -> list[str]:
    """The shards of one or several patterns, in order.

    Raises:
      PeaError: a shard is missing; the pattern and the tar files that exist in its folder are named.
    """
    shards = []
    for pattern in patterns.split() if isinstance(patterns, str) else patterns:
        for shard in expand_braces(pattern):
            if not os.path.isfile(shard):
                there = sorted(path.name for path in pathlib.Path(shard).parent.glob("*.tar"))
                raise PeaError(f"{shard}: no such shard (of {pattern!r}); in its folder: {', '.join(there) or 'none'}")
            shards.append(shard)
    return shards


class WebDatasetSource:
    """A `grain` random-access data source: `source[n]` is a `Sample`. It holds 40 bytes a sample, and the keys.

    Args:
      patterns: shards, with braces; several in a list or separated by spaces.
      cache_dir: where indices go that cannot be written beside their shard.

    Raises:
      PeaError: no shards, or one that is missing, compressed, damaged or truncated; a sample lacks its image or record.
    """

    def __init__(self, patterns: str | Sequence[str], cache_dir: str | None = None):
        self.shards = find_shards(patterns)
        if not self.shards:
            raise PeaError("no shards given; name at least one tar file")
        indices = [load_index(shard, cache_dir) for shard in self.shards]
        tables = [_table(index, shard) for index, shard in zip(indices, self.shards, strict=True)]
        self._shard_end = np.cumsum([len(table) for table in tables])
        self._members = np.concatenate(tables)
        self._key_bytes = np.concatenate([index.key_bytes for index in indices])
        self._key_end = _concatenate_ends([index.key_end for index in indices])

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        shard = self.shards[np.searchsorted(self._shard_end, number, side="right")]
        members, key = self._members[number], self.key(number)
        with open(shard, "rb", buffering=0) as file:
            image = _read(file.fileno(), shard, members["image_offset"], members["image_size"])
            record = _read(file.fileno(), shard, members["record_offset"], members["record_size"])
        return Sample(shard, key, image, _parse(record, shard, key))

    def key(self, number: int) -> str:
        return key_at(number, self._key_bytes, self._key_end)


_MEMBERS = np.dtype([("image_offset", "i8"), ("record_offset", "i8"), ("image_size", "u4"), ("record_size", "u4")])


def _table(index: TarIndex, shard: str) -> np.ndarray:
    """[N] of where each sample's image and record lie."""
    table = np.empty(len(index.key_end), _MEMBERS)
    for name, extensions in (("image", IMAGE), ("record", RECORD)):
        found = index.find(extensions)
        if (found < 0).any():
            lacking = np.flatnonzero(found < 0)
            what = " or ".join(f".{extension}" for extension in extensions)
            raise PeaError(f"{shard}: sample {index.key(lacking[0])} has no {what} ({len(lacking)} such samples)")
        table[f"{name}_offset"], table[f"{name}_size"] = index.offset[found], index.size[found]
    return table


def _concatenate_ends(ends: list[np.ndarray]) -> np.ndarray:
    starts = np.cumsum([0] + [end[-1] if len(end) else 0 for end in ends])
    return np.concatenate([end + start for end, start in zip(ends, starts, strict=False)])


def _read(descriptor: int, shard: str, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, int(size), int(offset))
    if len(data) < size:
        end = os.fstat(descriptor).st_size
        raise PeaError(f"{shard}: truncated at byte {end} since the run began; fetch the shard again")
    return data


def _parse(record: bytes, shard: str, key: str) -> dict:
    try:
        parsed = json.loads(record)
    except ValueError as error:
        raise PeaError(f"{shard}: sample {key}: the record is not JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise PeaError(f"{shard}: sample {key}: the record is not a JSON object")
    return parsed
