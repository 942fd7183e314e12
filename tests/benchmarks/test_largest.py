"""The search for the largest batch, on memory that is a formula."""

import pytest

from benchmarks.largest import largest


@pytest.mark.parametrize("curve", [0.0, 2e-3, -2e-3], ids=["linear", "more than linear", "less than linear"])
def test_finds_the_largest_batch_to_within_a_few_percent(curve):
    capacity, fixed = 140.0, 5.0
    taken = lambda rows: fixed + 1.7 * rows + curve * rows**2  # noqa: E731
    tried = []

    def attempt(rows: int) -> int | None:
        tried.append(rows)
        return taken(rows) if taken(rows) <= capacity else None

    found = dict(rows=8, peak=taken(8), fixed=fixed, capacity=capacity)
    best, failed = largest(attempt, **found, trials=4)
    most = max(rows for rows in range(1, 200) if taken(rows) <= capacity)
    assert taken(best) <= capacity and 0.9 * most <= best <= most
    assert failed is None or taken(failed) > capacity
    assert len(tried) <= 4 and len(set(tried)) == len(tried)


def test_nothing_larger_fits():
    assert largest(lambda rows: None, rows=8, peak=95.0, fixed=5.0, capacity=100.0, trials=3) == (8, None)
    assert largest(lambda rows: None, rows=8, peak=80.0, fixed=5.0, capacity=100.0, trials=1) == (8, 9)
