"""Which samples are trained on, from what a survey knows of them."""

import dataclasses

import numpy as np

from pea_jax.data.captions import Kind
from pea_jax.data.survey import Bad
from pea_jax.errors import PeaError

UNSCORED = ("keep", "drop")
WITHOUT_ENGLISH = "parallel pair without English"  # it cannot be learnt from the teacher


@dataclasses.dataclass(frozen=True)
class Filters:
    """What a sample must have to be used.

    The values that PEA-Diffusion is published with (utils/custom_dataset_sdxl.py) are 640 * 640 pixels, an aspect less
    than 2 away from the nearest bucket's, an aesthetic score of 6 and a watermark probability of 0.5. There, as here,
    the two scores are asked of parallel pairs alone, not of native samples. A sample without a score is kept by
    `unscored="keep"`, as published, and left out by "drop". Of a sample without a picture neither sizes nor scores are
    asked.

    Raises:
      PeaError: `unscored` is neither.
    """

    min_pixels: int = 0
    min_side: int = 0
    max_aspect_error: float = 0.0  # 0: any
    min_aesthetic: float = 0.0  # 0: any
    max_watermark: float = 1.0  # 1: any
    unscored: str = "keep"
    max_pixels: int = 0  # 0: any

    def __post_init__(self):
        if self.unscored not in UNSCORED:
            raise PeaError(f"config.data.filters.unscored={self.unscored!r}: choose from {', '.join(UNSCORED)}")

    def reasons(self, rows: np.ndarray, aspect_error: np.ndarray) -> dict[str, np.ndarray]:
        """Each reason to leave a sample out, and where it holds, bool [N].

        Args:
          rows: of a survey, [N].
          aspect_error: [N], see `nearest_buckets`.
        """
        sides = rows["width"].astype(np.int64), rows["height"].astype(np.int64)
        native, pictured = rows["native"], rows["picture"]
        found = {
            "sample cannot be read": rows["bad"] == Bad.SAMPLE,
            "image header cannot be read": rows["bad"] == Bad.IMAGE,
            "no caption": rows["caption"] == Kind.NONE,
            WITHOUT_ENGLISH: ~native & ~rows["english"],
            "native without a picture": native & ~pictured & (rows["bad"] == Bad.NOTHING),
        }
        scored = pictured & ~native
        if self.min_pixels:
            found[f"fewer than {self.min_pixels} pixels"] = pictured & (sides[0] * sides[1] < self.min_pixels)
        if self.max_pixels:
            found[f"more than {self.max_pixels} pixels"] = pictured & (sides[0] * sides[1] > self.max_pixels)
        if self.min_side:
            found[f"a side below {self.min_side} pixels"] = pictured & (np.minimum(*sides) < self.min_side)
        if self.max_aspect_error:
            found["aspect far from every bucket"] = pictured & (aspect_error >= self.max_aspect_error)
        if self.min_aesthetic:
            low = rows["aesthetic"] < self.min_aesthetic
            found[f"aesthetic score below {self.min_aesthetic:g}"] = scored & (low | self._unscored(rows["aesthetic"]))
        if self.max_watermark < 1:
            high = rows["watermark"] > self.max_watermark
            found[f"watermark above {self.max_watermark:g}"] = scored & (high | self._unscored(rows["watermark"]))
        return found

    def _unscored(self, score: np.ndarray) -> np.ndarray:
        return np.isnan(score) & (self.unscored == "drop")


def apply_reasons(reasons: dict[str, np.ndarray], count: int) -> tuple[np.ndarray, dict[str, int]]:
    """What is left of `count` samples, bool [N], and how many each reason, in order, removed of those it was left."""
    kept, removed = np.ones(count, bool), {}
    for name, holds in reasons.items():
        removed[name] = int(np.count_nonzero(kept & holds))
        kept &= ~holds
    return kept, removed
