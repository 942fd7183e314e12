"""Estimates with 95% confidence intervals."""

import math
from typing import NamedTuple

import numpy as np

Z_95 = 1.959963984540054


class Estimate(NamedTuple):
    """A figure, the ends of its 95% interval, and how many observations it rests on."""

    value: float
    low: float
    high: float
    observations: int


def proportion(hits: np.ndarray) -> Estimate:
    """Share of True in `hits [N]`, N at least 1, with its Wilson interval."""
    successes, total = int(np.count_nonzero(hits)), len(hits)
    return Estimate(successes / total, *wilson_interval(successes, total), total)


def mean(values: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of `values [N]`, N at least 1, with its bootstrap interval."""
    return Estimate(float(np.mean(values)), *bootstrap_interval(values, seed), len(values))


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); `(0, 1)` without any observation."""
    if total == 0:
        return 0.0, 1.0
    share, spread = successes / total, Z_95**2 / total
    centre = share + spread / 2
    half = Z_95 * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


def bootstrap_interval(values: np.ndarray, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values [N]`, N at least 1; the same for the same seed."""
    rng, count = np.random.default_rng(seed), len(values)
    means = [values[rng.integers(count, size=count)].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
