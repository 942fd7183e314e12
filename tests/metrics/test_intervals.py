"""Intervals against scipy and against their definition."""

import numpy as np
import pytest
from scipy import stats

from pea_jax.metrics.intervals import bootstrap_interval, wilson_interval


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (10, 10), (1, 3), (78, 156), (1500, 1606)])
def test_wilson_equals_scipy(successes, total):
    expected = stats.binomtest(successes, total).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, total), (expected.low, expected.high), atol=1e-9)


def test_wilson_of_nothing_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_bootstrap_is_seeded_and_close_to_the_normal_interval():
    values = np.random.default_rng(3).exponential(size=500)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert (low, high) != bootstrap_interval(values, seed=1)
    half = 1.96 * values.std() / np.sqrt(len(values))
    np.testing.assert_allclose((low, high), (values.mean() - half, values.mean() + half), atol=0.2 * half)


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.normal(size=60), seed=trial, resamples=300)
        covered += low <= 0 <= high
    assert 0.89 <= covered / 200 <= 0.99
