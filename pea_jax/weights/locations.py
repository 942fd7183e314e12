"""Where a model that a config or an adapter names lies on this machine."""

import pathlib

from pea_jax.errors import PeaError
from pea_jax.weights import hub

PROJECT = pathlib.Path(__file__).resolve().parents[2]


def locate(name: str | pathlib.Path, subfolder: str = "") -> pathlib.Path:
    """A model's folder or file: as the user wrote it, within the project's own tree (`assets/...`), or on the Hub.

    Args:
      name: a path, or OWNER/NAME of a model on the Hugging Face Hub, which is downloaded into its cache.
      subfolder: what is to be downloaded if not all of a pipeline; not part of the result.

    Raises:
      PeaError: it is in none of the three places.
    """
    text = str(name)
    for path in (pathlib.Path(name).expanduser(), PROJECT / name):
        if text and path.exists():
            return path
    if hub.REPO_ID.fullmatch(text):
        return hub.snapshot(text, subfolder)
    raise PeaError(
        f"{text!r}: no such model folder; give the path of a folder in diffusers or transformers layout, "
        "or OWNER/NAME of a model on the Hugging Face Hub"
    )
