"""Intervals of figures over seeds and names."""

import numpy as np

from benchmarks.studies.summary import estimate, retrieval_at_1
from pea_jax.metrics.intervals import wilson_interval


def test_names_alone_give_the_interval_of_a_proportion():
    hits = np.zeros((1, 400))
    hits[0, :100] = 1
    found = estimate(hits)
    assert found.value == 0.25
    np.testing.assert_allclose((found.low, found.high), wilson_interval(100, 400), atol=0.01)


def test_the_same_answers_again_are_no_new_evidence():
    hits = np.random.default_rng(0).random((1, 150)) < 0.5
    once, thrice = estimate(hits), estimate(np.repeat(hits, 3, axis=0))
    assert abs((thrice.high - thrice.low) - (once.high - once.low)) < 0.02


def test_seeds_that_differ_widen_the_interval():
    values = np.full((3, 100), 0.5)
    assert np.ptp(estimate(values)[:3]) == 0
    found = estimate(values + np.array([[-0.1], [0.0], [0.1]]))
    assert found.value == 0.5 and found.low < 0.42 and found.high > 0.58


def test_first_places_are_counted_over_all_runs():
    runs = [dict(results={"seen": dict(ranks=ranks)}) for ranks in ([1, 2, 1, 9], [1, 1, 1, 3])]
    assert retrieval_at_1(runs, "seen").value == 5 / 8
