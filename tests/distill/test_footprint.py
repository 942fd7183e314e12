"""The search for the largest batch, on programs whose memory is known."""

import dataclasses

import pytest

from pea_jax.distill.footprint import Footprint, TooLarge, largest

NOTHING = Footprint(**{field.name: 0 for field in dataclasses.fields(Footprint)})


def search(memory, limit):
    """The largest batch, and all that were compiled."""
    compiled = []

    def measure(batch):
        compiled.append(batch)
        if memory(batch) > limit:
            raise TooLarge(memory(batch))
        return dataclasses.replace(NOTHING, batch=batch, memory=memory(batch))

    step = largest(measure, limit)
    return (step.batch if step else None), compiled


@pytest.mark.parametrize(("limit", "expected"), [(30, 10), (31, 10), (12, 1), (11, None), (16, 3), (1000, 495)])
def test_memory_that_grows_evenly_takes_few_compilations(limit, expected):
    found, compiled = search(lambda batch: 10 + 2 * batch, limit)
    assert found == expected
    assert len(compiled) <= 4 and len(set(compiled)) == len(compiled)


@pytest.mark.parametrize("limit", [50, 64, 100, 333])
def test_what_does_not_grow_evenly_ends_close_to_the_largest(limit):
    """Steps of memory, as padding makes them, and a compiler that saves where it must."""

    def memory(batch):
        return 10 + 2 * batch + (batch % 4) / 4 + 8 * (batch // 16)

    found, compiled = search(memory, limit)
    best = max(batch for batch in range(1, 400) if memory(batch) <= limit)
    assert memory(found) <= limit and found >= 0.9 * best
    assert len(compiled) <= 8


def test_what_misses_by_a_hair_is_halved():
    """As the compiler for v4 has it: whatever the batch, it fills a chip up to the limit and a little over it."""
    found, compiled = search(lambda batch: 900 + 20 * batch if batch < 100 else 3310 + batch % 3, 3302)
    assert 94 <= found < 100 and len(compiled) <= 8
