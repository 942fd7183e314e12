"""Where a model that a config or an adapter names lies on this machine."""

import pathlib

from pea_jax.errors import PeaError

PROJECT = pathlib.Path(__file__).resolve().parents[2]


def locate(name: str) -> pathlib.Path:
    """A model folder as the user wrote it, or within the project's own tree (`assets/...`).

    Raises:
      PeaError: it is in neither place.
    """
    for path in (pathlib.Path(name).expanduser(), PROJECT / name):
        if name and path.is_dir():
            return path
    raise PeaError(f"{name!r}: no such model folder; give the path of a folder in diffusers or transformers layout")
