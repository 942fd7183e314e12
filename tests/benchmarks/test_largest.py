"""The search for the largest batch, on memory that is a formula."""

import pytest

from benchmarks.largest import Search

CAPACITY, FIXED = 140.0, 5.0


@pytest.mark.parametrize("curve", [0.0, 2e-3, -2e-3], ids=["linear", "more than linear", "less than linear"])
@pytest.mark.parametrize("start", [0.0, 9.0], ids=["from the parameters", "with memory that every batch takes"])
@pytest.mark.parametrize("planned", [(), (8, 16, 32, 64)], ids=["measured", "planned"])
def test_finds_the_largest_batch_to_within_a_few_percent(curve, start, planned):
    taken = lambda rows: FIXED + start + 1.7 * rows + curve * rows**2  # noqa: E731
    search = Search({rows: taken(rows) for rows in planned} or {0: FIXED}, CAPACITY)
    guess, tried = search.first(8), []
    for _ in range(5):
        if guess is None:
            break
        tried.append(guess)
        if taken(guess) <= CAPACITY:
            search.measured(guess, taken(guess))
        else:
            search.too_large(guess)
        guess = search.guess()
    most = max(rows for rows in range(1, 200) if taken(rows) <= CAPACITY)
    assert taken(search.best) <= CAPACITY and 0.96 * most <= search.best <= most
    assert search.failed is None or taken(search.failed) > CAPACITY
    assert tried[0] == (planned[-1] if planned else 8) and len(set(tried)) == len(tried)


def test_the_line_goes_through_the_two_largest_that_were_measured():
    search = Search({0: 5.0}, 100.0)
    search.measured(10, 45.0)  # 4 a row with what every batch takes; in truth 1
    assert search.guess() == 23
    search.measured(23, 58.0)
    assert search.guess() == 62


def test_nothing_larger_fits():
    search = Search({0: 5.0}, 100.0)
    search.measured(8, 99.0)
    assert search.guess() is None and (search.best, search.failed) == (8, None)
    search = Search({0: 5.0}, 100.0)
    search.measured(8, 90.0)
    search.too_large(9)
    assert search.guess() is None and (search.best, search.failed) == (8, 9)


def test_devices_share_a_batch_evenly():
    search = Search({8: 20.0, 16: 35.0}, 100.0, multiple=4)
    assert search.guess() == 48  # 49 would fit
    search.too_large(48)
    assert search.guess() == 44


def test_a_first_batch_that_does_not_fit_leaves_nothing_to_guess():
    search = Search({0: 5.0}, 100.0)
    search.too_large(search.first(8))
    assert search.guess() is None and search.best == 0


def test_what_was_planned_to_fit_and_did_not_run_is_tried_smaller():
    search = Search({8: 20.0, 16: 35.0, 32: 65.0, 64: 125.0}, 100.0)
    search.too_large(search.first(8))
    assert search.failed == 32 and search.guess() == 29
