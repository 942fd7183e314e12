"""Image-text samples in webdataset tar shards, by number, read where they lie.

A sample is an image (`png`, `jpg`, `jpeg`, `webp`) and a `json` record with `caption_<language>` and, if there are any,
`keywords_<language>`, `native` and `family`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from pea_jax.data import storage
from pea_jax.data.index_cache import load_indices
from pea_jax.data.samples import HEAD, Part, Sample
from pea_jax.data.storage import File
from pea_jax.errors import BadSample, PeaError

_NEAR = 1 << 16  # a record so near to its image is read with it in one go


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern stands for: `a-{08..10}.tar` (zeros kept) and `{cat,dog}.tar`, side by side or alone.

    Raises:
      PeaError: it counts downwards, and would stand for nothing.
    """
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    if not words and int(first) > int(last):
        raise PeaError(f"{pattern}: counts downwards; write {{{last}..{first}}}")
    parts = words.split(",") if words else [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    tails = expand_braces(pattern[match.end() :])
    return [pattern[: match.start()] + part + tail for part in parts for tail in tails]


def check_quoted(arguments: Sequence[str], flags: Iterable[str]) -> None:
    """Refuse what is left of a pattern without quotes: the shell makes a flag of each name that the braces stand for.

    Raises:
      PeaError: one of the flags is there with several values.
    """
    for flag in flags:
        values = {argument for argument in arguments if argument.startswith(f"{flag}=")}
        if len(values) > 1:
            raise PeaError(
                f"{flag} has {len(values)} values, of which the last alone would be read; put a pattern with braces in "
                "quotes, and several places into one value, with spaces between"
            )


def find_shards(patterns: str | Sequence[str]) -> list[File]:
    """The shards of one or several patterns, in order.

    Raises:
      PeaError: a shard is missing; the pattern and the tar files that exist in its folder are named. Or as
        `expand_braces`.
    """
    patterns = patterns.split() if isinstance(patterns, str) else patterns
    named = [(shard, pattern) for pattern in patterns for shard in expand_braces(pattern)]
    files = storage.find_files(shard for shard, _ in named)
    return [files[shard] or _missing(shard, pattern) for shard, pattern in named]


def _missing(shard: str, pattern: str) -> NoReturn:
    folder = shard.rpartition("/")[0] or ("/" if shard.startswith("/") else ".")
    there = ", ".join(name for name in storage.list_names(folder) if name.endswith(".tar"))
    raise PeaError(f"{shard}: no such shard (of {pattern!r}); in its folder: {there or 'none'}")


class WebDatasetSource:
    """A `grain` random-access data source: `source[n]` is a `Sample`. It holds some bytes a shard, none a sample.

    Args:
      patterns: shards, with braces, on disk or `gs://` and `s3://`; several in a list or separated by spaces.
      cache_dir: where indices go that cannot be written beside their shard; by default `~/.cache/pea_jax`.

    `source[n]` raises `BadSample` where the record is no JSON object or the shard was cut since.

    Raises:
      PeaError: no shards, or one that is missing, compressed, damaged or truncated; a sample lacks its image or record.
    """

    def __init__(self, patterns: str | Sequence[str], cache_dir: str | None = None):
        shards = find_shards(patterns)
        if not shards:
            raise PeaError("no shards given; name at least one tar file")
        self._indices = load_indices(shards, cache_dir)
        self._ends = np.cumsum([index.count for index in self._indices])

    @property
    def parts(self) -> list[Part]:
        return [Part(index.shard.path, index.shard.stamp, index.count) for index in self._indices]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Sample:
        shard, row = self._find(number)
        return _sample(shard, row, int(row["image_size"]))

    def head(self, number: int) -> Sample:
        """The same sample, of its image only the first bytes."""
        shard, row = self._find(number)
        return _sample(shard, row, min(HEAD, int(row["image_size"])))

    def _find(self, number: int) -> tuple[str, np.void]:
        """The shard of a sample and its row in the index."""
        number = range(len(self))[number]
        which = int(np.searchsorted(self._ends, number, side="right"))
        index = self._indices[which]
        return index.shard.path, index.row(number - int(self._ends[which]) + index.count)


def _sample(shard: str, row: np.void, image_size: int) -> Sample:
    key = row["key"].decode(errors="backslashreplace")
    image, record = _read_both(
        shard, key, (int(row["image_offset"]), image_size), (int(row["record_offset"]), int(row["record_size"]))
    )
    return Sample(shard, key, image, _parse(record, shard, key))


def _read_both(shard: str, key: str, image: tuple[int, int], record: tuple[int, int]) -> tuple[bytes, bytes]:
    """Each is an offset and a size."""
    first, last = sorted((image, record))
    if last[0] - sum(first) > _NEAR:
        return _read(shard, key, *image), _read(shard, key, *record)
    data = _read(shard, key, first[0], sum(last) - first[0])
    return tuple(data[offset - first[0] :][:size] for offset, size in (image, record))  # type: ignore[return-value]


def _read(shard: str, key: str, offset: int, size: int) -> bytes:
    data = storage.read(shard, offset, size)
    if len(data) < size:
        raise BadSample(f"{shard}: sample {key}: the shard was cut at byte {offset + len(data)} since the run began")
    return data


def _parse(record: bytes, shard: str, key: str) -> dict[str, Any]:
    try:
        parsed = json.loads(record)
    except (ValueError, RecursionError) as error:
        raise BadSample(f"{shard}: sample {key}: the record is not JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise BadSample(f"{shard}: sample {key}: the record is not a JSON object")
    return parsed
