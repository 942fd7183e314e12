"""ArrayRecord files, written as they are read: one record at a time."""

import contextlib
import os
from collections.abc import Iterable, Iterator

from array_record.python.array_record_module import ArrayRecordWriter


def write(path: str | os.PathLike[str], records: Iterable[bytes]) -> None:
    """Write a file of these records.

    Raises:
      OSError: it cannot be written; what there is of it is no whole file.
    """
    # One record a group, else reading one decompresses its neighbours; pictures and floats hardly compress.
    with _os_errors():
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    try:
        for record in records:
            with _os_errors():
                writer.write(record)
    finally:
        with _os_errors():
            writer.close()


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """The library has errors of its own, with a page of where they were met."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(0, " ".join(str(error).partition("; writing ")[0].split())) from error
