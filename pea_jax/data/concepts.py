"""A whole set in memory, as evaluation wants it."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from pea_jax.data.samples import Sample
from pea_jax.data.sources import open_source


@dataclasses.dataclass(frozen=True)
class Concept:
    """A picture and what it is called in each language."""

    key: str
    family: str
    names: dict[str, str]
    keywords: dict[str, list[str]]
    pixels: np.ndarray  # uint8 [H, W, 3]


def read_split(
    patterns: str | Sequence[str],
    languages: Sequence[str],
    cache_dir: str | None = None,
    caption: Callable[[Sample, str], str] = Sample.caption,
) -> list[Concept]:
    """Every sample of a small set that has a picture, decoded, in order.

    Args:
      patterns: as for `open_source`.
      languages: those to name the concepts in.
      cache_dir: where indices go that cannot be written beside their shard.
      caption: gives the text of a sample in a language, or raises.

    Raises:
      PeaError: the set cannot be read (see `open_source`), or a sample has no caption in one of the languages.
    """
    source = open_source(patterns, cache_dir)
    return [
        Concept(
            key=sample.key,
            family=sample.family,
            names={language: caption(sample, language) for language in languages},
            keywords={language: sample.keywords(language) for language in languages},
            pixels=sample.pixels(),
        )
        for sample in map(source.__getitem__, range(len(source)))
        if sample.has_picture
    ]
