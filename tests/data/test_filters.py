import numpy as np
import pytest

from pea_jax.data.captions import Kind
from pea_jax.data.filters import Filters, apply_reasons
from pea_jax.data.survey import ROW, Bad
from pea_jax.errors import PeaError


def row(
    width=640,
    height=640,
    aesthetic=6.0,
    watermark=0.5,
    caption=Kind.TRANSLATED,
    native=False,
    english=True,
    bad=0,
    picture=True,
):
    return width, height, aesthetic, watermark, caption, native, english, bad, picture


def removed(filters: Filters, *rows: tuple, aspect_error: float = 0.0) -> list[list[str]]:
    """The reasons to leave out each of these samples."""
    table = np.array(list(rows), ROW)
    reasons = filters.reasons(table, np.full(len(rows), aspect_error))
    return [[name for name, holds in reasons.items() if holds[number]] for number in range(len(rows))]


PUBLISHED = Filters(min_pixels=640 * 640, max_aspect_error=2.0, min_aesthetic=6.0, max_watermark=0.5)


def test_published_limits_are_kept_and_what_is_beyond_is_not():
    assert removed(PUBLISHED, row(), row(1280, 320), row(639, 640)) == [[], [], ["fewer than 409600 pixels"]]
    assert removed(PUBLISHED, row(aesthetic=5.99)) == [["aesthetic score below 6"]]
    assert removed(PUBLISHED, row(watermark=0.51)) == [["watermark above 0.5"]]
    assert removed(PUBLISHED, row(), aspect_error=1.99) == [[]]
    assert removed(PUBLISHED, row(), aspect_error=2.0) == [["aspect far from every bucket"]]


def test_native_samples_are_asked_for_no_score():
    assert removed(PUBLISHED, row(native=True, aesthetic=1, watermark=1)) == [[]]
    assert removed(PUBLISHED, row(639, 640, native=True)) == [["fewer than 409600 pixels"]]


def test_of_texts_alone_neither_size_nor_score_is_asked():
    strict = Filters(640 * 640, 640, 2.0, 6.0, 0.5, unscored="drop", max_pixels=2_000_000)
    text = row(1, 1, np.nan, np.nan, picture=False)
    assert removed(strict, text, aspect_error=3.0) == [[]]
    assert removed(strict, row(1, 1, picture=False, native=True)) == [["native without a picture"]]
    assert removed(strict, row(1, 1, picture=False, english=False)) == [["parallel pair without English"]]


def test_a_sample_without_a_score():
    lacking = row(aesthetic=np.nan), row(watermark=np.nan), row(native=True, aesthetic=np.nan)
    assert removed(PUBLISHED, *lacking) == [[], [], []]
    strict = Filters(min_aesthetic=6.0, max_watermark=0.5, unscored="drop")
    assert removed(strict, *lacking) == [["aesthetic score below 6"], ["watermark above 0.5"], []]
    with pytest.raises(PeaError, match="config.data.filters.unscored='no': choose from keep, drop"):
        Filters(unscored="no")


def test_what_no_setting_lets_through():
    assert removed(
        Filters(),
        row(1, 1, aesthetic=-9, watermark=9),
        row(english=False),
        row(english=False, native=True),
        row(caption=Kind.NONE, native=False),
        row(bad=Bad.IMAGE),
        row(bad=Bad.SAMPLE),
    ) == [
        [],
        ["parallel pair without English"],
        [],
        ["no caption"],
        ["image header cannot be read"],
        ["sample cannot be read"],
    ]


def test_least_side():
    assert removed(Filters(min_side=512), row(512, 900), row(511, 900), row(900, 511)) == [
        [],
        ["a side below 512 pixels"],
        ["a side below 512 pixels"],
    ]


def test_most_pixels():
    assert removed(Filters(max_pixels=1000), row(100, 10), row(11, 91)) == [[], ["more than 1000 pixels"]]


def test_pixels_of_the_largest_images_do_not_overflow():
    assert removed(PUBLISHED, row(65535, 65535)) == [[]]


def test_each_sample_is_counted_once():
    reasons = {"a": np.array([True, True, False, False]), "b": np.array([True, False, True, False])}
    kept, counts = apply_reasons(reasons, 4)
    assert kept.tolist() == [False, False, False, True] and counts == {"a": 2, "b": 1}
