"""A sample: one encoded image, and the JSON record that names it."""

import contextlib
import dataclasses
import io
import pathlib
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from pea_jax.errors import BadSample

HEAD = 1 << 16  # bytes of an image that nearly always hold its header

# What turns a picture upright, by the orientation that its camera noted in EXIF.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image-text sample; `shard` and `key` say where it came from.

    `image` is the encoded file. A sample that is text alone has None, and is shown as one grey pixel.
    """

    shard: str
    key: str
    image: bytes | None
    record: dict[str, Any]

    @property
    def has_picture(self) -> bool:
        return self.image is not None

    @property
    def family(self) -> str:
        """Samples of one family show the same concept and are never divided between splits; one whose
        record names none, or has null there as tables have, is of its own."""
        found = self.record.get("family")
        return str(found) if isinstance(found, str | int) else self.key

    def caption(self, language: str) -> str:
        """The field `caption_<language>`.

        Raises:
          BadSample: it is absent, empty or not a text.
        """
        text = self.record.get(f"caption_{language}")
        if not isinstance(text, str) or not text.strip():
            raise BadSample(
                f"{self.shard}: sample {self.key}: no text in field caption_{language}; add it or leave the sample out"
            )
        return text

    def keywords(self, language: str) -> list[str]:
        """The field `keywords_<language>`; data without keywords has none."""
        return self.record.get(f"keywords_{language}", [])

    def open(self) -> Image.Image:
        """The image, its header read and its pixels not yet.

        Raises:
          BadSample: Pillow does not know this kind of file, or its header promises an absurd number of pixels.
        """
        if self.image is None:
            return Image.new("L", (1, 1), 128)
        try:
            return open_picture(io.BytesIO(self.image))
        except UnidentifiedImageError as error:
            raise self._bad_image("of no known kind") from error
        except Exception as error:  # Pillow lets through whatever its readers stumble over
            raise self._bad_image(error) from error

    def size(self) -> tuple[int, int]:
        """Width and height that `rgb` has, as the header tells them; raises as `open`."""
        image = self.open()
        return image.size if _orientation(image) < 5 else image.size[::-1]

    def rgb(self, max_pixels: int | None = None) -> Image.Image:
        """The image, decoded: upright, and on white where one can look through it.

        Raises:
          BadSample: it cannot be decoded, or its header promises more than `max_pixels`.
        """
        image = self.open()
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise self._bad_image(f"{image.width}x{image.height} are more than {max_pixels} pixels")
        try:
            orientation = _orientation(image)
            decoded = self._decode(image)
            return decoded.transpose(_UPRIGHT[orientation]) if orientation > 1 else decoded
        except Exception as error:
            raise self._bad_image(error) from error

    def pixels(self) -> np.ndarray:
        """The image as uint8 [H, W, 3]; raises as `rgb`."""
        return np.asarray(self.rgb())

    def _decode(self, image: Image.Image) -> Image.Image:
        if self.image and image.format == "JPEG" and image.mode in ("RGB", "L"):
            with contextlib.suppress(ValueError):  # of what is damaged Pillow is the judge
                return Image.fromarray(simplejpeg.decode_jpeg(self.image, strict=True))  # the same pixels, sooner
        return opaque(image)

    def _bad_image(self, reason: object) -> BadSample:
        return BadSample(f"{self.shard}: sample {self.key}: the image cannot be decoded ({reason})")


def open_picture(file: pathlib.Path | BinaryIO) -> Image.Image:
    """As `PIL.Image.open`, which runs Ghostscript on an EPS file, whatever its name: here that is of no known kind."""
    Image.init()
    return Image.open(file, formats=[kind for kind in Image.ID if kind != "EPS"])


def _orientation(image: Image.Image) -> int:
    """1 (upright) to 8; 1 as well where EXIF stands behind the pixels, is damaged or is not there."""
    if "exif" not in image.info:
        return 1
    with contextlib.suppress(Exception):  # Pillow lets through whatever it stumbles over
        found = image.getexif().get(ExifTags.Base.Orientation)
        return found if found in _UPRIGHT else 1
    return 1


def opaque(image: Image.Image) -> Image.Image:
    """The image in RGB, on white where one can look through it; Pillow alone would show what is under transparency.

    Raises:
      ValueError: as for `eight_bits`.
    """
    image = eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """The image with the upper 8 of 16 bits; Pillow alone would make white of all that is above the lower 8.

    Raises:
      ValueError: nobody knows which of its numbers is white.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}, 32 bits of one colour")
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image


@dataclasses.dataclass(frozen=True)
class Part:
    """The next `count` samples of a source, kept and changed together: those of one shard, or of one table.

    `stamp` is another one after a change; of `loose` ones, whose pictures are files of their own, only after one of the
    table.
    """

    path: str
    stamp: str
    count: int
    loose: bool = False
