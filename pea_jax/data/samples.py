"""A sample: one encoded image, and the JSON record that names it."""

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from pea_jax.errors import PeaError


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image-text sample; `shard` and `key` say where it came from."""

    shard: str
    key: str
    image: bytes
    record: dict[str, Any]

    @property
    def family(self) -> str:
        """Samples of one family show the same concept and are never divided between splits."""
        return self.record.get("family", self.key)

    @property
    def native(self) -> bool:
        """True: text of the language's own culture, to be learnt from the image; False: a parallel English pair."""
        return bool(self.record.get("native", False))

    def has_caption(self, language: str) -> bool:
        text = self.record.get(f"caption_{language}")
        return isinstance(text, str) and bool(text.strip())

    def caption(self, language: str) -> str:
        """The field `caption_<language>`.

        Raises:
          PeaError: it is absent, empty or not a text.
        """
        if not self.has_caption(language):
            raise PeaError(
                f"{self.shard}: sample {self.key}: no text in field caption_{language}; add it or leave the sample out"
            )
        return self.record[f"caption_{language}"]

    def keywords(self, language: str) -> list[str]:
        """The field `keywords_<language>`; data without keywords has none."""
        return self.record.get(f"keywords_{language}", [])

    def open(self) -> Image.Image:
        """The image, its header read and its pixels not yet.

        Raises:
          PeaError: Pillow does not know this kind of file.
        """
        try:
            return Image.open(io.BytesIO(self.image))
        except (OSError, Image.DecompressionBombError) as error:
            raise self._bad_image(error) from error

    def rgb(self) -> Image.Image:
        """The image, decoded.

        Raises:
          PeaError: it cannot be decoded.
        """
        try:
            return self.open().convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise self._bad_image(error) from error

    def pixels(self) -> np.ndarray:
        """The image as uint8 [H, W, 3]; raises as `rgb`."""
        return np.asarray(self.rgb())

    def _bad_image(self, error: Exception) -> PeaError:
        return PeaError(f"{self.shard}: sample {self.key}: the image cannot be decoded ({error})")
