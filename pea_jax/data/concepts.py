"""A whole set in memory, as evaluation wants it."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from pea_jax.data.samples import Sample
from pea_jax.data.sources import open_source
from pea_jax.errors import PeaError


@dataclasses.dataclass(frozen=True)
class Concept:
    """A picture and what it is called in each language."""

    key: str
    family: str
    names: dict[str, str]
    pixels: np.ndarray  # uint8 [H, W, 3]


def read_split(
    patterns: str | Sequence[str],
    languages: Sequence[str],
    cache_dir: str | None = None,
    caption: Callable[[Sample, str], str] = Sample.caption,
    size: tuple[int, int] | None = None,
) -> list[Concept]:
    """Every sample of a small set that has a picture, decoded, in order.

    Args:
      patterns: as for `open_source`.
      languages: those to name the concepts in.
      cache_dir: where indices go that cannot be written beside their shard.
      caption: gives the text of a sample in a language, or raises.
      size: width and height that all pictures must have, if any.

    Raises:
      PeaError: the set cannot be read (see `open_source`), or a sample has no caption in one of the languages, or its
        picture another size.
    """
    source = open_source(patterns, cache_dir)
    return [
        Concept(
            key=sample.key,
            family=sample.family,
            names={language: caption(sample, language) for language in languages},
            pixels=_pixels(sample, size),
        )
        for sample in map(source.__getitem__, range(len(source)))
        if sample.has_picture
    ]


def _pixels(sample: Sample, size: tuple[int, int] | None) -> np.ndarray:
    pixels = sample.pixels()
    height, width, _ = pixels.shape
    if size and (width, height) != tuple(size):
        raise PeaError(
            f"{sample.shard}: sample {sample.key}: {width}x{height} pixels, and what it is compared with is drawn at "
            f"config.picture_size={tuple(size)}; make all pictures of that size, or judge with --prompts"
        )
    return pixels
