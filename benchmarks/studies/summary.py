"""From the runs of a study to figures with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pea_jax.metrics.intervals import Estimate

RESAMPLES = 2000


def estimate(values: np.ndarray) -> Estimate:
    """Mean of `values` `[S, N]`, S seeds by N names, with its 95% interval.

    Percentile bootstrap in which seeds and names are drawn again, each by itself (Owen 2007, "The pigeonhole
    bootstrap"): runs are asked for the same names, so that their answers are not independent. With one seed it
    is the names alone; with three, what seeds add is known roughly.
    """
    rng, (seeds, names) = np.random.default_rng(0), values.shape
    drawn_seeds = rng.integers(seeds, size=(RESAMPLES, seeds))
    drawn_names = rng.integers(names, size=(RESAMPLES, names))
    means = [values[np.ix_(a, b)].mean() for a, b in zip(drawn_seeds, drawn_names, strict=True)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), values.size)


def retrieval_at_1(runs: Sequence[dict[str, Any]], names: str) -> Estimate:
    """Share of a set's names whose picture was found, over the runs of one variant."""
    return estimate(_matrix(runs, names, "ranks") <= 1)


def distance(runs: Sequence[dict[str, Any]], names: str) -> Estimate:
    """To the English teacher's pictures, over the runs of one variant."""
    return estimate(_matrix(runs, names, "distances"))


def _matrix(runs: Sequence[dict[str, Any]], names: str, field: str) -> np.ndarray:
    return np.array([run["results"][names][field] for run in runs], np.float64)
