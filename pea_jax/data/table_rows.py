"""Rows of a table, `.jsonl` or `.parquet`, each a record."""

import json
from typing import Any

import numpy as np

from pea_jax.data import storage
from pea_jax.data.parquet_rows import as_lines
from pea_jax.data.samples import Part
from pea_jax.data.storage import File
from pea_jax.errors import BadSample, PeaError

_BLOCK = 1 << 24


class TableRows:
    """`rows[n]` is the record of row n, from 0; columns of bytes are left out. It holds 8 bytes a row.

    `rows[n]` raises `BadSample` where a row is no JSON object.

    Args:
      path: on disk or in a remote store.
      cache_dir: where rows of parquet tables go.

    Raises:
      PeaError: the table cannot be read.
    """

    def __init__(self, path: str, cache_dir: str | None = None):
        self.file = _existing(path)
        self._lines = _existing(as_lines(self.file, cache_dir)) if path.endswith(".parquet") else self.file
        self._starts = _line_starts(self._lines)

    @property
    def part(self) -> Part:
        return Part(self.file.path, self.file.stamp, len(self))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        start, end = self._starts[number : number + 2].tolist()
        where = self.where(number)
        try:
            record = json.loads(storage.read(self._lines.path, start, end - start))
        except (ValueError, RecursionError) as error:
            raise BadSample(f"{where}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise BadSample(f"{where}: not a JSON object")
        return record

    def where(self, number: int) -> str:
        """A row's name in messages."""
        return f"{self.file.path}: row {number + 1}"


def _existing(path: str) -> File:
    if (file := storage.find_file(path)) is None:
        raise PeaError(f"{path}: no such file")
    return file


def _line_starts(file: File) -> np.ndarray:
    """[N + 1] int64: where each line starts, and the end of the last; blank lines at the end are left out."""
    ends = [np.zeros(1, np.int64)]
    with storage.open_reader(file.path) as read:
        for start in range(0, file.size, _BLOCK):
            block = np.frombuffer(read(start, _BLOCK), np.uint8)
            ends.append(np.flatnonzero(block == ord("\n")) + start + 1)
        starts = np.concatenate(ends)
        if starts[-1] < file.size:
            starts = np.append(starts, file.size)
        while (
            len(starts) > 1
            and starts[-1] - starts[-2] < 3
            and not bytes(read(starts[-2], starts[-1] - starts[-2])).strip()
        ):
            starts = starts[:-1]
    return starts
