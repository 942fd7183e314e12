"""Rows of a parquet table as lines of JSON, written once: parquet itself reads thousands of rows to give one."""

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from pea_jax.data import storage
from pea_jax.data.kept_files import default_folder
from pea_jax.data.storage import File
from pea_jax.errors import PeaError
from pea_jax.whole_files import whole

PICTURES = frozenset({"image", "img", "picture", "jpg", "jpeg", "png", "webp"})


def as_lines(table: File, cache_dir: str | None = None) -> str:
    """The path of a file in the cache folder with a JSON object a row; columns of bytes are left out.

    Raises:
      PeaError: pyarrow is not installed, the table cannot be read, or the lines cannot be written.
    """
    name = hashlib.sha256(f"{os.path.abspath(table.path)} {table.stamp}".encode()).hexdigest()[:32]
    target = pathlib.Path(cache_dir or default_folder()) / f"{name}.jsonl"
    if target.exists():
        return str(target)
    try:
        with whole(target, shared=True) as partial:
            _write(table.path, partial)
    except OSError as error:
        advice = "give a cache folder that can be written"
        raise PeaError(
            f"{table.path}: its rows cannot be kept in {target.parent} ({error.strerror}); {advice}"
        ) from error
    return str(target)


def picture_columns(path: str) -> list[str]:
    """The columns of a table that hold pictures, as its schema tells: bytes beside a path, as Hugging Face's datasets
    write them, or bytes under a name of `PICTURES`.

    Raises:
      PeaError: pyarrow is not installed, or the table cannot be read.
    """
    with _opened(path) as (types, file):
        kinds = {field.name: field.type for field in file.schema_arrow}
    embedded = {name for name, kind in kinds.items() if types.is_struct(kind) and kind.get_field_index("bytes") >= 0}
    binary = {name for name, kind in kinds.items() if types.is_binary(kind) or types.is_large_binary(kind)}
    return sorted(embedded | binary & PICTURES)


def _write(path: str, target: pathlib.Path) -> None:
    with target.open("w", encoding="utf-8") as lines:
        for row in _rows(path):
            lines.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _rows(path: str) -> Iterator[dict[str, Any]]:
    with _opened(path) as (types, file):
        binary = types.is_binary, types.is_large_binary, types.is_struct
        names = [field.name for field in file.schema_arrow if not any(kind(field.type) for kind in binary)]
        for batch in file.iter_batches(columns=names):
            yield from batch.to_pylist()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The module `pyarrow.types`, and the table as a `pyarrow.parquet.ParquetFile`."""
    arrow, parquet = _pyarrow(path)
    with storage.open_stream(path) as stream:
        try:
            yield arrow.types, parquet.ParquetFile(stream)
        except arrow.ArrowException as error:
            raise PeaError(f"{path}: not a whole parquet table ({' '.join(str(error).split())})") from error
        except OSError as error:  # pyarrow's own as well, of damage inside
            raise PeaError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy the table again") from error
        except UnicodeDecodeError as error:  # which parquet promises, and not every writer looks at
            raise PeaError(f"{path}: has a text that is not UTF-8 ({error}); write the table again") from error


def _pyarrow(path: str) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        advice = "pip install 'pea_jax[parquet]', or write metadata.jsonl"
        raise PeaError(f"{path}: reading parquet needs pyarrow; {advice}") from error
