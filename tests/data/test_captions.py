import pytest

from pea_jax.data import Sample, caption_variants, parallel_captions
from pea_jax.errors import PeaError

WORDS = ["зрелое", "красное", "Яблоко", "фрукт", "еда", "сад"]


def test_variants():
    captions = caption_variants("яблоко", WORDS, count=8, key="1f34e", seed=0)
    assert captions[0] == "яблоко"
    for caption in captions[1:6]:
        name, *keywords = caption.split(", ")
        assert name == "яблоко" and 1 <= len(keywords) <= 3 and set(keywords) < set(WORDS) - {"Яблоко"}
        assert len(set(keywords)) == len(keywords)
    assert all("яблоко" not in caption.lower() for caption in captions[6:])


def test_variants_stay_the_same_for_ever():
    """Caches of text states are made with them."""
    expected = ["яблоко", "яблоко, красное, зрелое, фрукт", "яблоко, фрукт"]  # ranked by hand with sha256sum
    assert caption_variants("яблоко", WORDS, count=3, key="1f34e", seed=0) == expected
    assert caption_variants("яблоко", WORDS[::-1], count=3, key="1f34e", seed=0) == expected


def test_seed_and_key_change_the_draw():
    draws = {
        tuple(caption_variants("яблоко", WORDS, count=4, key=key, seed=seed)) for key in "abc" for seed in range(3)
    }
    assert len(draws) == 9


def test_every_keyword_comes_up():
    seen = {
        word
        for key in range(50)
        for caption in caption_variants("яблоко", WORDS, count=8, key=str(key), seed=0)
        for word in caption.split(", ")
    }
    assert seen == set(WORDS) - {"Яблоко"} | {"яблоко"}


def test_variant_v_is_a_parallel_pair():
    """It has as many keywords in every language that has enough."""
    english = ["ripe", "red", "fruit", "food", "garden"]
    for key in "abcdef":
        russian = caption_variants("яблоко", WORDS, count=8, key=key, seed=0)
        parallel = caption_variants("apple", english, count=8, key=key, seed=0)
        assert [caption.count(",") for caption in russian] == [caption.count(",") for caption in parallel]


def test_without_keywords_there_is_the_name():
    assert caption_variants("яблоко", ["яблоко"], count=4, key="a", seed=0) == ["яблоко"] * 4
    assert caption_variants("яблоко", [], count=1, key="a", seed=0) == ["яблоко"]


def test_parallel_captions():
    record = {"caption_ru": "щи", "caption_en": "cabbage soup", "keywords_en": ["soup"]}
    pair = parallel_captions(Sample("a.tar", "1", b"", record), "ru", count=2, seed=0)
    assert pair == (["щи", "щи"], ["cabbage soup", "cabbage soup, soup"])


def test_english_variants_are_english_on_both_sides():
    record = {"caption_ru": "щи", "caption_en": "cabbage soup", "keywords_en": ["soup"]}
    pair = parallel_captions(Sample("a.tar", "1", b"", record), "ru", count=1, english=2, seed=0)
    assert pair == (
        ["щи", "cabbage soup", "cabbage soup, soup"],
        ["cabbage soup", "cabbage soup", "cabbage soup, soup"],
    )
    native = parallel_captions(
        Sample("a.tar", "1", b"", {"caption_ru": "щи", "native": True}), "ru", count=1, english=1, seed=0
    )
    assert native == (["щи", "щи"], ["", ""])


def test_native_sample_needs_no_english():
    record = {"caption_ru": "щи", "native": True}
    assert parallel_captions(Sample("a.tar", "1", b"", record), "ru", count=2, seed=0) == (["щи", "щи"], ["", ""])
    with pytest.raises(PeaError, match=r"a\.tar: sample 1: no text in field caption_en"):
        parallel_captions(Sample("a.tar", "1", b"", {"caption_ru": "щи"}), "ru", count=2, seed=0)
    with pytest.raises(PeaError, match=r"a\.tar: sample 1: no text in field caption_it"):
        parallel_captions(Sample("a.tar", "1", b"", record), "it", count=2, seed=0)
