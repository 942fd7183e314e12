"""Where samples come from: tar shards, folders of images, tables of texts, tensorflow-datasets folders, some joined."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from pea_jax.data import storage
from pea_jax.data.image_folder import ImageFolderSource
from pea_jax.data.samples import Part, Sample
from pea_jax.data.text_table import TABLES, TextTableSource
from pea_jax.data.tfds_source import TfdsSource, is_tfds_folder
from pea_jax.data.webdataset import WebDatasetSource, expand_braces
from pea_jax.errors import PeaError


class Source(Protocol):
    """Samples by number; `parts` says what they lie in, in order, and changes when that does."""

    @property
    def parts(self) -> list[Part]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Sample: ...

    def head(self, number: int) -> Sample:
        """The same sample; of its image perhaps only the first bytes, enough for most headers."""
        ...


def open_source(patterns: str | Sequence[str], cache_dir: str | None = None) -> Source:
    """The samples of one or several sets, one after the other.

    Args:
      patterns: tar shards, with braces; folders with `metadata.jsonl` or `metadata.parquet`; tables of texts without
        pictures, `.jsonl` or `.parquet`; tensorflow-datasets folders (`FOLDER:SPLIT` for another split than "train");
        on disk or, but for the last, `gs://` and `s3://`. Several in a list or separated by spaces.
      cache_dir: where indices go that cannot be written beside their data; by default `~/.cache/pea_jax`.

    Raises:
      PeaError: something is missing, damaged or of no known kind.
    """
    names = patterns.split() if isinstance(patterns, str) else list(patterns)
    if not names:
        raise PeaError("no data given; name tar shards or a folder")
    sources: list[Source] = []
    shards: list[str] = []
    for name in names:
        if all(part.endswith(".tar") for part in expand_braces(name)):
            shards.append(name)
            continue
        if shards:
            sources.append(WebDatasetSource(shards, cache_dir))
            shards = []
        sources += [_open_other(folder, cache_dir) for folder in expand_braces(name)]
    if shards:
        sources.append(WebDatasetSource(shards, cache_dir))
    return sources[0] if len(sources) == 1 else JoinedSource(sources)


class JoinedSource:
    """Sources, one after the other."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources])

    @property
    def parts(self) -> list[Part]:
        return [part for source in self._sources for part in source.parts]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Sample:
        source, number = self._find(number)
        return source[number]

    def head(self, number: int) -> Sample:
        source, number = self._find(number)
        return source.head(number)

    def _find(self, number: int) -> tuple[Source, int]:
        """The source of a sample and its number there."""
        number = range(len(self))[number]
        which = int(np.searchsorted(self._ends, number, side="right"))
        source = self._sources[which]
        return source, number - int(self._ends[which]) + len(source)


class EnglishAlone:
    """The samples of a source without what they say in another language.

    Args:
      source: the samples.
      fields: those of a record that are left out.
    """

    def __init__(self, source: Source, fields: Iterable[str]):
        self._source, self._fields = source, frozenset(fields)

    @property
    def parts(self) -> list[Part]:
        return [dataclasses.replace(part, stamp=f"{part.stamp}, English alone") for part in self._source.parts]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> Sample:
        return self._without(self._source[number])

    def head(self, number: int) -> Sample:
        return self._without(self._source.head(number))

    def _without(self, sample: Sample) -> Sample:
        record = {name: value for name, value in sample.record.items() if name not in self._fields}
        return dataclasses.replace(sample, record=record)


def _open_other(name: str, cache_dir: str | None) -> Source:
    folder, _, split = name.rpartition(":")
    if is_tfds_folder(name):
        return TfdsSource(name)
    if folder and is_tfds_folder(folder):
        return TfdsSource(folder, split)
    if name.endswith(TABLES) and not os.path.isdir(name):
        return TextTableSource(name, cache_dir)
    if storage.is_remote(name) or os.path.isdir(name):
        return ImageFolderSource(name, cache_dir)
    if os.path.exists(name):
        raise PeaError(
            f"{name}: not a tar shard (.tar), a table ({' or '.join(TABLES)}) or a folder; see pea_jax/data/sources.py "
            "for what is read"
        )
    raise PeaError(f"{name}: no such folder, and no tar shard (.tar)")
