"""Scores of systems side by side: means over prompts, and each system's difference to the first, with intervals."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from pea_jax.judging.clip import CLIP
from pea_jax.judging.picture_files import opened
from pea_jax.judging.prompts import ALL_CATEGORIES
from pea_jax.metrics.intervals import Estimate, mean


class Score(Protocol):
    """How well each of `count` pictures a text goes with it, `[N, count]` of N texts."""

    def __call__(self, texts: Sequence[str], pictures: Iterable[Image.Image], count: int) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Metric:
    """How well pictures go with their texts; `texts` has one a prompt, or None where there is none to compare with."""

    name: str
    score: Score
    texts: Sequence[str | None]

    def scores(self, paths: Sequence[Sequence[pathlib.Path | None]]) -> np.ndarray:
        """`[P, S]` of the pictures of each prompt and seed; NaN where there is no text or no picture."""
        scores = np.full((len(paths), len(paths[0])), np.nan)
        there = [(i, text) for i, text in enumerate(self.texts) if text and all(paths[i])]
        if not there:
            return scores
        numbers, texts = map(list, zip(*there, strict=True))
        pictures = opened([path for i in numbers for path in paths[i] if path])
        scores[numbers] = self.score(texts, pictures, len(paths[0]))
        return scores


def clip_score(name: str, clip: CLIP, texts: Sequence[str | None]) -> Metric:
    """CLIPScore (Hessel et al. 2021) as torchmetrics scales it: 100 times the cosine, at least 0."""
    return Metric(name, functools.partial(_cosines, clip, 100.0, 0.0), texts)


def pick_score(clip: CLIP, texts: Sequence[str | None]) -> Metric:
    """PickScore (Kirstain et al. 2023): the cosine times the scale that the model was trained with."""
    return Metric("PickScore", functools.partial(_cosines, clip, clip.logit_scale, -np.inf), texts)


def _cosines(
    clip: CLIP, scale: float, floor: float, texts: Sequence[str], pictures: Iterable[Image.Image], count: int
) -> np.ndarray:
    """Of the vectors of text and picture, times `scale`, or `floor` if that is more."""
    vectors = clip.text_embeds(texts).astype(np.float64)
    images = clip.image_embeds(pictures).astype(np.float64)
    cosines = np.einsum("pd,psd->ps", vectors, images.reshape(len(texts), count, images.shape[-1]))
    return np.maximum(scale * cosines, floor)


@dataclasses.dataclass(frozen=True)
class Result:
    """One system on the prompts of one category; `difference` to the first system is on the prompts both have drawn."""

    metric: str
    category: str
    system: str
    score: Estimate
    difference: Estimate | None


def compare(metric: str, scores: Mapping[str, np.ndarray], categories: Sequence[str], seed: int = 0) -> list[Result]:
    """The results of all systems, first on all prompts, then category by category.

    Args:
      metric: its name.
      scores: of each system `[P, S]`; a prompt counts once, with the mean over its seeds.
      categories: of the P prompts.
      seed: of the bootstrap.
    """
    means = {system: values.mean(axis=1) for system, values in scores.items()}
    names = list(dict.fromkeys(categories))
    results = []
    for category in [ALL_CATEGORIES, *(names if len(names) > 1 else [])]:
        chosen = np.array([category in (ALL_CATEGORIES, own) for own in categories])
        first = next(iter(means.values()))[chosen]
        for number, (system, values) in enumerate(means.items()):
            difference = _estimate(values[chosen] - first, seed) if number else None
            if (score := _estimate(values[chosen], seed)) is not None:
                results.append(Result(metric, category, system, score, difference))
    return results


def _estimate(values: np.ndarray, seed: int) -> Estimate | None:
    """The mean of those that are numbers; None if there is none."""
    values = values[np.isfinite(values)]
    return mean(values, seed) if len(values) else None
