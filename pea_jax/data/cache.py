"""Precomputed samples on disk: one ArrayRecord file of safetensors records, and a manifest that says what made them."""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import grain
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter

from pea_jax.errors import PeaError

_RECORDS, _MANIFEST = "samples.array_record", "manifest.json"
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I32": np.int32}


def write_cache(folder: str, records: Iterable[Mapping[str, np.ndarray]], manifest: Mapping[str, Any]) -> None:
    """Writes a cache, in full or not at all; the manifest goes last and completes it.

    A record holds float32, float16, bfloat16 or int32 arrays under the names of a sample, for V captions: "moments"
    [h, w, 2c], "states" [V, L, D], "prompt_embeds" [V, M, E], "pooled_prompt_embeds" [V, P], "time_ids" [6],
    "native" [].

    Raises:
      PeaError: the folder cannot be made.
    """
    target = pathlib.Path(folder)
    made = _make_folder(target)
    suffix = uuid.uuid4().hex
    samples, complete = target / f"{_RECORDS}.{suffix}", target / f"{_MANIFEST}.{suffix}"
    try:
        count = _write_records(samples, records)
        complete.write_text(json.dumps({**manifest, "samples": count}, indent=1, sort_keys=True))
        (target / _MANIFEST).unlink(missing_ok=True)
        os.replace(samples, target / _RECORDS)
        os.replace(complete, target / _MANIFEST)
    finally:
        samples.unlink(missing_ok=True)
        complete.unlink(missing_ok=True)
        for path in made:  # those that stayed empty
            with contextlib.suppress(OSError):
                path.rmdir()


class CachedSource:
    """A `grain` random-access data source over a cache: `source[n]` is the dict of arrays that was written n-th.

    Args:
      folder: where `write_cache` wrote.
      expected: what the cache must have been made with; fields of the manifest that are not named here may be anything.

    Raises:
      PeaError: there is no complete and whole cache, or a field of its manifest is not as expected.
    """

    def __init__(self, folder: str, expected: Mapping[str, Any] | None = None):
        self.manifest = read_manifest(folder)
        _check(folder, self.manifest, json.loads(json.dumps(expected or {})))
        try:
            self._records = grain.sources.ArrayRecordDataSource(str(pathlib.Path(folder) / _RECORDS))
        except RuntimeError as error:
            raise PeaError(f"{folder}: {_RECORDS} is damaged; remove this folder, and it is made again") from error
        if len(self._records) != self.manifest["samples"]:
            count = self.manifest["samples"]
            raise PeaError(
                f"{folder}: {len(self._records)} samples instead of {count}; remove this folder, and it is made again"
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return {name: _array(spec) for name, spec in safetensors.deserialize(self._records[number])}


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a complete cache.

    Raises:
      PeaError: there is none.
    """
    try:
        (pathlib.Path(folder) / _RECORDS).stat()
        return json.loads((pathlib.Path(folder) / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise PeaError(
            f"{folder}: no complete cache here ({_RECORDS}, {_MANIFEST}); remove this folder, and it is made again"
        ) from error


def _make_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders that had to be made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return missing
    except OSError as error:
        raise PeaError(
            f"{folder}: the cache cannot be written there ({error.strerror}); name another folder"
        ) from error


def _write_records(path: pathlib.Path, records: Iterable[Mapping[str, np.ndarray]]) -> int:
    # One record a group, else reading one decompresses its neighbours; floats hardly compress.
    writer, count = ArrayRecordWriter(str(path), "group_size:1,uncompressed"), 0
    try:
        for record in records:
            writer.write(_serialize(record))
            count += 1
    finally:
        writer.close()
    return count


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
        raise PeaError(
            f"{folder}: made with {field} = {found!r}, this run has {expected!r}; remove it or name another folder"
        )
