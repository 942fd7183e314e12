"""A folder of image files with a table of them, as Hugging Face's `imagefolder` reads it.

`metadata.jsonl` or `metadata.parquet`, in the folder or in several of its subfolders, has a column `file_name`, whose
names start from the table; the other columns are the record.
"""

import contextlib
import dataclasses
import os
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pea_jax.data import storage
from pea_jax.data.samples import HEAD, Part, Sample
from pea_jax.data.table_rows import TableRows
from pea_jax.data.text_cleaning import is_unicode
from pea_jax.errors import BadSample, PeaError

TABLES = ("metadata.jsonl", "metadata.parquet")


def find_tables(folder: str) -> list[str]:
    """The tables of a folder and its subfolders, in order; in a remote store the subfolders are not looked at.

    Raises:
      PeaError: one of them has a table in both forms, whose samples would be there twice.
    """
    remote = storage.is_remote(folder)
    places = [(folder.rstrip("/"), storage.list_names(folder))] if remote else sorted(_walk(folder))
    for place, names in places:
        if set(TABLES) <= set(names):
            raise PeaError(f"{place}: holds {' and '.join(TABLES)}, each a table of its pictures; leave one of them")
    return [f"{place}/{name}" for place, names in places for name in TABLES if name in names]


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder below and its files; those behind links as well, each once, wherever the links lead."""
    seen = set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
        else:
            seen.add(real)
            yield place, names


class ImageFolderSource:
    """A `grain` random-access data source: `source[n]` is a `Sample`. It holds 8 bytes a sample.

    `source[n]` raises `BadSample` where a row has no usable `file_name`, or the file is missing.

    Args:
      folder: on disk or in a remote store.
      cache_dir: where rows of parquet tables go.

    Raises:
      PeaError: as `find_tables`; or the folder has no table, or one of them cannot be read.
    """

    def __init__(self, folder: str, cache_dir: str | None = None):
        self._tables = [_Table(path, cache_dir) for path in find_tables(folder)]
        if not self._tables:
            raise PeaError(f"{folder}: no {' or '.join(TABLES)} in this folder; name tar shards or add a table")
        self._ends = np.cumsum([len(table) for table in self._tables])

    @property
    def parts(self) -> list[Part]:
        return [dataclasses.replace(table.part, loose=True) for table in self._tables]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Sample:
        return self._sample(number, storage.read_all)

    def head(self, number: int) -> Sample:
        """The same sample, of its image only the first bytes."""
        return self._sample(number, lambda path: storage.read(path, 0, HEAD))

    def _sample(self, number: int, read: Callable[[str], bytes]) -> Sample:
        number = range(len(self))[number]
        which = int(np.searchsorted(self._ends, number, side="right"))
        table = self._tables[which]
        return table.sample(number - int(self._ends[which]) + len(table), read)


class _Table(TableRows):
    def sample(self, number: int, read: Callable[[str], bytes]) -> Sample:
        """`read` gives an image file's bytes."""
        record, where = self[number], self.where(number)
        name = _file_name(record, where)
        try:
            return Sample(self.file.path, name, _read_image(os.path.dirname(self.file.path), name, read), record)
        except PeaError as error:
            raise BadSample(f"{where}: {error}") from error


def _read_image(folder: str, name: str, read: Callable[[str], bytes]) -> bytes:
    """A Mac writes й, ế and 한 in a file's name as several letters where tables have one; other systems tell the two
    apart. Raises as `read`."""
    try:
        return read(f"{folder}/{name}")
    except PeaError:
        for other in {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} - {name}:
            with contextlib.suppress(PeaError):
                return read(f"{folder}/{other}")
        raise


def _file_name(record: dict[str, Any], where: str) -> str:
    """Taken out of the record."""
    name = record.pop("file_name", None)
    if not isinstance(name, str) or not name:
        raise BadSample(f"{where}: no text in column file_name")
    if name.startswith("/") or ".." in name.split("/") or "\0" in name or storage.is_remote(name):
        raise BadSample(f"{where}: file_name {name!r} may lead out of the folder; name a file in it")
    if not is_unicode(name):
        raise BadSample(f"{where}: file_name {name!r} cannot be the name of a file")
    return name
