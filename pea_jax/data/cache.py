"""Precomputed samples on disk: ArrayRecord files of safetensors records, and a manifest that says what made them.

A cache is made of parts, each of one bucket. A part is one file that appears once it is whole, so that several
processes share the work, and what was stopped goes on with the parts that are missing.
"""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordReader

from pea_jax import locks
from pea_jax.data import array_records, open_files
from pea_jax.data.buckets import Size
from pea_jax.errors import BadSample, PeaError

PART_SIZE = 1024  # samples
_MANIFEST = "manifest.json"
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I32": np.int32}


class CachePart(NamedTuple):
    """Some samples of one bucket, by their numbers in the data source."""

    number: int
    bucket: Size
    rows: Sequence[int] | np.ndarray


def divide(rows_by_bucket: Mapping[Size, Sequence[int] | np.ndarray], size: int = PART_SIZE) -> list[CachePart]:
    """The parts of a cache: the rows of each bucket in their order, `size` of them a part."""
    cut = [
        (bucket, rows[start : start + size])
        for bucket, rows in sorted(rows_by_bucket.items())
        for start in range(0, len(rows), size)
    ]
    return [CachePart(number, bucket, rows) for number, (bucket, rows) in enumerate(cut)]


class CacheWriter:
    """Writes the parts of a cache that are not there yet.

    Args:
      folder: where to; made with the first part.
      manifest: what the records depend on.
      parts: all of them, the same in every process.

    Raises:
      PeaError: the folder holds a cache that was made with something else.
    """

    def __init__(self, folder: str | pathlib.Path, manifest: Mapping[str, Any], parts: Sequence[CachePart]):
        self._folder, self._parts = pathlib.Path(folder), parts
        sizes = [[*part.bucket, len(part.rows)] for part in parts]  # width, height, samples
        self._manifest = json.loads(json.dumps({**manifest, "parts": sizes}))
        if (self._folder / _MANIFEST).exists():
            self._check_manifest()

    def missing(self, process_index: int = 0, process_count: int = 1) -> list[CachePart]:
        """This process's share of the parts that are still to be written."""
        return [part for part in self._parts[process_index::process_count] if not self._path(part).exists()]

    def write(self, part: CachePart, records: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write one part, in full or not at all.

        A record holds float32, float16, bfloat16 or int32 arrays under the names of a sample, for V captions: "moments"
        [h, w, 2c], "states" [V, L, D], "prompt_embeds" [V, M, E], "pooled_prompt_embeds" [V, P], "time_ids" [6],
        "native" []. There may be fewer records than rows, where samples were bad.

        Raises:
          PeaError: the folder cannot be written, or another run has begun another cache there meanwhile.
        """
        with _new_folder(self._folder):
            path = self._path(part)
            for torn in self._folder.glob(f"{path.name}.*"):
                with locks.held(torn) as free:
                    if free:  # else another run is writing the same part
                        torn.unlink(missing_ok=True)
            with _whole(path) as partial:
                array_records.write(partial, map(_serialize, records))
                if not (self._folder / _MANIFEST).exists():
                    self._write_manifest()
                self._check_manifest()  # of who was the first to have a part; no other may be put beside it

    def _write_manifest(self) -> None:
        with _whole(self._folder / _MANIFEST) as partial:
            partial.write_text(json.dumps(self._manifest, indent=1, sort_keys=True))

    def _check_manifest(self) -> None:
        found = read_manifest(self._folder)
        _check(str(self._folder), found | {"parts": None}, self._manifest | {"parts": None})
        if found.get("parts") != (sizes := self._manifest["parts"]):
            raise _other(str(self._folder), "parts", _counts(found.get("parts")), _counts(sizes))

    def _path(self, part: CachePart) -> pathlib.Path:
        return _part_path(self._folder, part.number)


class CachedSource:
    """A `grain` random-access data source over a cache: `source[n]` is a dict of arrays.

    `source[n]` raises `BadSample` where a part is damaged inside.

    Args:
      folder: where the parts are.
      expected: what the cache must have been made with; fields of the manifest that are not named here may be anything.

    Raises:
      PeaError: there is no cache, some of it is missing or damaged, a field of its manifest is not as expected, or its
        parts are more files than the system lets a process hold open.
    """

    def __init__(self, folder: str | pathlib.Path, expected: Mapping[str, Any] | None = None):
        self.manifest = read_manifest(folder)
        _check(str(folder), self.manifest, json.loads(json.dumps(expected or {})))
        parts = self.manifest["parts"]
        paths = [str(_part_path(pathlib.Path(folder), number)) for number in range(len(parts))]
        if missing := [path for path in paths if not os.path.exists(path)]:
            raise PeaError(
                f"{folder}: {len(missing)} of {len(paths)} parts are missing, the first "
                f"{os.path.basename(missing[0])}; python -m pea_jax.precompute makes them"
            )
        open_files.allow(len(paths), str(folder))
        ends = np.cumsum([0, *[_count(path) for path in paths]])
        self._paths, self._ends = paths, ends
        self.rows_by_bucket: dict[Size, np.ndarray] = {}
        for (width, height, _), start, end in zip(parts, ends, ends[1:], strict=False):
            before = self.rows_by_bucket.get((width, height), np.empty(0, np.int64))
            self.rows_by_bucket[width, height] = np.concatenate([before, np.arange(start, end)])
        self._records = grain.sources.ArrayRecordDataSource(paths)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        try:
            return {name: _array(spec) for name, spec in safetensors.deserialize(self._records[number])}
        except (RuntimeError, safetensors.SafetensorError) as error:
            part = self._paths[int(np.searchsorted(self._ends, number, side="right")) - 1]
            raise BadSample(
                f"{part}: damaged, sample {number} of the cache cannot be read; remove the file, and python -m "
                "pea_jax.precompute makes it again"
            ) from error


def read_manifest(folder: str | pathlib.Path) -> dict[str, Any]:
    """The manifest of a cache, which may not be whole yet.

    Raises:
      PeaError: there is none.
    """
    try:
        return json.loads((pathlib.Path(folder) / _MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise PeaError(f"{folder}: no cache here ({error}); python -m pea_jax.precompute makes one") from error


def _part_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"part-{number:05d}.array_record"


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[None]:
    """`folder`, made if it is not there; what was made and stayed empty goes again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise PeaError(
            f"{folder}: the cache cannot be written there ({error.strerror}); make room there or name another folder"
        ) from error
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives another path to write to, which becomes `path` at the end; after an error nothing is left of it."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with locks.held(partial):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _count(path: str) -> int:
    try:
        reader = ArrayRecordReader(path)
        try:
            return reader.num_records()
        finally:
            reader.close()
    except RuntimeError as error:
        raise PeaError(f"{path}: damaged; remove it, and python -m pea_jax.precompute makes it again") from error


def _serialize(record: Mapping[str, np.ndarray]) -> bytes:
    # safetensors writes the memory as it lies, whatever the strides
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in record.items()}
    wrong = {name: str(array.dtype) for name, array in arrays.items() if array.dtype not in _DTYPES.values()}
    if wrong:
        raise TypeError(f"a record to be cached has {wrong}; take one of {', '.join(_DTYPES)}")
    return safetensors.numpy.save(arrays)


def _array(spec: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(spec["data"], _DTYPES[spec["dtype"]]).reshape(spec["shape"])


def _check(folder: str, found: Any, expected: Any, field: str = "") -> None:
    if isinstance(found, dict) and isinstance(expected, dict):
        for name, value in expected.items():
            _check(folder, found.get(name), value, f"{field}.{name}" if field else name)
    elif found != expected:
        raise _other(folder, field, repr(found), repr(expected))


def _other(folder: str, field: str, found: str, expected: str) -> PeaError:
    return PeaError(f"{folder}: made with {field} = {found}, this run has {expected}; remove it or name another folder")


def _counts(parts: Sequence[Sequence[int]] | None) -> str:
    """The samples of each bucket: a large cache has thousands of parts."""
    counts: dict[str, int] = {}
    for width, height, count in parts or ():
        counts[f"{width}x{height}"] = counts.get(f"{width}x{height}", 0) + count
    return ", ".join(f"{count} samples of {bucket}" for bucket, count in counts.items()) or "none"
