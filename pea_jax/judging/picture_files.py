"""Folders of pictures, read one by one."""

import pathlib
from collections.abc import Iterator, Sequence

from PIL import Image

from pea_jax.data.samples import opaque, open_picture
from pea_jax.errors import PeaError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def pictures_in(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """All pictures below a folder, in the order of their names.

    Raises:
      PeaError: there is no such folder, or fewer than two pictures in it.
    """
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        raise PeaError(f"{folder}: no such folder of pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(found) < 2:
        raise PeaError(f"{folder}: {len(found)} pictures ({', '.join(SUFFIXES)}); two or more are needed")
    return found


def opened(paths: Sequence[pathlib.Path]) -> Iterator[Image.Image]:
    """The pictures themselves, one at a time, in RGB as `opaque` makes them.

    Raises:
      PeaError: naming the file that is no picture.
    """
    for path in paths:
        try:
            with open_picture(path) as picture:
                shown = opaque(picture)
        except Exception as error:  # Pillow lets through whatever its readers stumble over
            raise PeaError(f"{path}: not a picture that can be read ({error}); remove it") from error
        yield shown
