"""Files made from data and kept: beside it, or where that cannot be written, in a cache folder."""

import atexit
import functools
import hashlib
import os
import pathlib
import shutil
import tempfile

from absl import logging

from pea_jax.data.storage import is_remote
from pea_jax.whole_files import whole


def default_folder() -> str:
    """Where they go that cannot lie beside their data; a user without a home keeps them no longer than the process."""
    try:
        return str(pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pea_jax")
    except RuntimeError:
        return _temporary()


@functools.cache
def _temporary() -> str:
    """Of this process alone: programs are run from there, and nobody else may have put them there."""
    folder = tempfile.mkdtemp(prefix="pea_jax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def places(path: str, suffix: str, cache_dir: str | None = None) -> list[pathlib.Path]:
    """Where what is kept of the file `path` may lie, the first choice first; nothing is written to remote stores."""
    remote = is_remote(path)
    folder, name = os.path.split(path if remote else os.path.abspath(path))
    cached = hashlib.sha256(folder.encode()).hexdigest()[:16]
    found = [pathlib.Path(cache_dir or default_folder()) / cached / f"{name}{suffix}"]
    return found if remote else [pathlib.Path(folder) / f"{name}{suffix}", *found]


def write(paths: list[pathlib.Path], data: bytes) -> pathlib.Path | None:
    """Writes to the first of the paths that can be written, in full or not at all; None where none can be."""
    for path in paths:
        try:
            with whole(path, shared=True) as partial:
                partial.write_bytes(data)
            return path
        except OSError as error:
            logging.debug("%s: not saved there (%s)", path, error)
    logging.warning("%s: could not be saved; give a cache folder that can be written", paths[0])
    return None
