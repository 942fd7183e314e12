"""Files that are there in full or not at all."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

PARTIAL = ".partial"  # at the end of what is not yet whole


@contextlib.contextmanager
def whole(path: pathlib.Path, *, shared: bool = False) -> Iterator[pathlib.Path]:
    """Gives another path to write to, which becomes `path` at the end; after an error nothing is left of it.

    Args:
      path: what is there already stays until the end; its folder is made.
      shared: others may be writing the same file, so that each does under a name of its own.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}" if shared else path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
