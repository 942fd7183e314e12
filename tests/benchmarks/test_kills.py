"""What the benchmark of kills would call a repeated or a lost sample; the kills themselves are its own run."""

from benchmarks.kills import compare

ALONE = [(1, (0, 1)), (2, (2, 3)), (3, (1, 0)), (4, (3, 2))]


def test_steps_done_again_are_no_repeated_samples():
    found = compare(ALONE, [*ALONE[:3], *ALONE[1:]], 4)
    assert found["steps_done_again"] == 2
    assert found["steps_with_other_samples"] == found["repeated_or_lost"] == 0


def test_other_samples_after_a_resumption_are():
    found = compare(ALONE, [*ALONE[:2], (3, (0, 1)), (4, (3, 1))], 4)
    assert found["steps_with_other_samples"] == 2 and found["repeated_or_lost"] == 2
    assert compare(ALONE, ALONE[:3], 4)["repeated_or_lost"] > 0
