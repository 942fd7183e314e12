"""Files on a disk or, under an address such as `gs://bucket/name`, in a remote store; remote ones through fsspec."""

import contextlib
import dataclasses
import functools
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from pea_jax.errors import PeaError

# Fields of fsspec's file systems that change with a file's content, the most reliable first.
_VERSIONS = ("generation", "etag", "ETag", "md5Hash", "LastModified", "mtime", "created")
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}  # protocol to the extra of this package
_STREAM_BLOCK = 1 << 24


@dataclasses.dataclass(frozen=True)
class File:
    """A file that exists; `stamp` is another one when its content changes."""

    path: str
    size: int
    stamp: str


def is_remote(path: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def find_file(path: str) -> File | None:
    """None where there is no such file; the same errors as `find_files`."""
    return find_files([path])[path]


def find_files(paths: Iterable[str]) -> dict[str, File | None]:
    """Size and stamp of each file, None where there is no such file; remote folders are listed once each.

    Raises:
      PeaError: a store cannot be reached, or a library for it is missing.
    """
    paths = list(paths)
    listed: dict[str, dict[str, File]] = {}
    for folder in dict.fromkeys(_folder(path) for path in paths if is_remote(path)):
        listed[folder] = {file.path: file for file in _list_remote(folder)}
    return {path: listed[_folder(path)].get(path) if is_remote(path) else _find_local(path) for path in paths}


def list_names(folder: str) -> list[str]:
    """The names of the files in a folder, sorted; none where there is no such folder."""
    if is_remote(folder):
        return sorted(file.path.rpartition("/")[2] for file in _list_remote(folder.rstrip("/")))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file())
    return []


def read(path: str, offset: int, size: int) -> bytes:
    """Up to `size` bytes, fewer where the file ends.

    Raises:
      PeaError: the file cannot be read.
    """
    if is_remote(path):
        with _reading(path):
            return _file_system(path).cat_file(path, start=int(offset), end=int(offset + size)) if size else b""
    with _reading(path), open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), int(size), int(offset))


def read_all(path: str) -> bytes:
    """A whole file; raises as `read`."""
    with _reading(path):
        if is_remote(path):
            return _file_system(path).cat_file(path)
        with open(path, "rb") as file:
            return file.read()


@contextlib.contextmanager
def open_reader(path: str) -> Iterator[Callable[[int, int], bytes | memoryview]]:
    """`read` for many reads of one file; what it gives may change at the next call."""
    if is_remote(path):
        yield functools.partial(read, path)
        return
    with _reading(path), open(path, "rb", buffering=0) as file:
        buffer = bytearray()  # made once: new memory is slower than the disk

        def read_into(offset: int, size: int) -> memoryview:
            nonlocal buffer
            buffer = buffer if len(buffer) >= size else bytearray(size)
            view = memoryview(buffer)[:size]
            return view[: os.preadv(file.fileno(), [view], offset)]

        yield read_into


def open_stream(path: str) -> BinaryIO:
    """A file to be read mostly forwards; raises as `read`."""
    with _reading(path):
        if is_remote(path):
            return _file_system(path).open(path, "rb", block_size=_STREAM_BLOCK, cache_type="readahead")
        return io.BufferedReader(io.FileIO(path))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _find_local(path: str) -> File | None:
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PeaError(f"{path}: cannot be read ({error.strerror})") from error
    return File(path, stat.st_size, f"{stat.st_size} {stat.st_mtime_ns}") if os.path.isfile(path) else None


def _list_remote(folder: str) -> list[File]:
    store = _file_system(folder)
    with _reading(folder):
        store.invalidate_cache()
        try:
            entries = store.ls(folder, detail=True)
        except FileNotFoundError:
            return []
    files = [entry for entry in entries if entry["type"] == "file"]
    return [File(f"{folder}/{entry['name'].rpartition('/')[2]}", entry["size"], _stamp(entry)) for entry in files]


def _stamp(entry: dict[str, Any]) -> str:
    version = next((entry[field] for field in _VERSIONS if entry.get(field)), "")
    return f"{entry['size']} {version}"


def _file_system(path: str) -> Any:
    """fsspec keeps one for each store."""
    import fsspec

    protocol = path.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(path)[0]
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install 'pea_jax[{extra}]'" if extra else " ".join(str(error).split())
        raise PeaError(f"{path}: a library that reads {protocol}:// is not installed; {advice}") from error
    except ValueError as error:
        raise PeaError(f"{path}: {protocol}:// is not known; use gs://, s3:// or a path") from error


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except PeaError:
        raise
    except OSError as error:
        raise PeaError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # each store's library has exceptions of its own
        if not is_remote(path):
            raise
        reason = " ".join(str(error).split()) or "no reason given"
        raise PeaError(f"{path}: cannot be read ({type(error).__name__}: {reason})") from error
