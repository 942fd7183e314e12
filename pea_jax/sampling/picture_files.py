"""Pictures from files, in the size of what is drawn."""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pea_jax.data.samples import eight_bits, open_picture
from pea_jax.errors import PeaError
from pea_jax.sampling.guides import Guides

MODES = {"image": "RGB", "mask_image": "L", "control_image": "RGB"}


@dataclasses.dataclass(frozen=True)
class GuideFiles:
    """The pictures of `Guides` as files, the same for all drawings, and its numbers as they are."""

    paths: dict[str, str]
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _pictures(self) -> dict[str, Image.Image]:
        return {name: _read(path, MODES[name]) for name, path in self.paths.items()}

    def of_size(self, width: int, height: int) -> Guides:
        """The guides of drawings of this size; pictures of another are resized.

        Raises:
          PeaError: a file is missing, damaged or no picture.
        """
        resized = {name: _resized(picture, (width, height)) for name, picture in self._pictures.items()}
        return Guides(**resized, **self.numbers)

    def describe(self) -> dict[str, Any]:
        """What a drawing depends on: the numbers, and a hash of each picture."""
        hashes = {name: hashlib.sha256(picture.tobytes()).hexdigest() for name, picture in self._pictures.items()}
        return {**hashes, **self.numbers}


def _read(path: str, mode: str) -> Image.Image:
    try:
        with open_picture(pathlib.Path(path)) as image:
            return eight_bits(ImageOps.exif_transpose(image)).convert(mode)
    except UnidentifiedImageError as error:
        raise PeaError(f"{path}: not a picture; give a PNG, JPEG or WebP file") from error
    except OSError as error:
        raise PeaError(f"{path}: cannot be read ({error.strerror or error}); name a picture") from error
    except Image.DecompressionBombError as error:
        raise PeaError(f"{path}: {error}; give a smaller picture") from error
    except Exception as error:  # of a damaged file Pillow lets through whatever it stumbles over
        raise PeaError(f"{path}: cannot be decoded ({error}); save it again, as a PNG of 8 or 16 bits") from error


def _resized(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    picture = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture)[None]
