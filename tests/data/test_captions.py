import pytest

from pea_jax.data import CaptionRules, Sample, caption_variants
from pea_jax.data.captions import Kind
from pea_jax.errors import BadSample, PeaError

WORDS = ["зрелое", "красное", "Яблоко", "фрукт", "еда", "сад"]


def test_variants():
    captions = caption_variants("яблоко", WORDS, count=8, key="1f34e", seed=0)
    assert captions[0] == "яблоко"
    for caption in captions[1:6]:
        name, *keywords = caption.split(", ")
        assert name == "яблоко" and 1 <= len(keywords) <= 3 and set(keywords) < set(WORDS) - {"Яблоко"}
        assert len(set(keywords)) == len(keywords)
    assert all("яблоко" not in caption.lower() for caption in captions[6:])


def test_braces_around_anything_but_language_are_part_of_a_name():
    """Of a field that no sample has, as its message then says."""
    rules = CaptionRules("ru", translated=("caption_{lang}", "{}_{language}", "text {"), keywords="{0}")
    assert rules.names() == ["caption_{lang}", "{}_ru", "text {", "caption_en"] and rules.keywords_in("ru") == "{0}"


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


def sample(**record) -> Sample:
    return Sample("a.tar", "1", b"", record)


PAIR = dict(caption_ru="щи", caption_en="cabbage soup", keywords_en=["soup"])


def test_parallel_captions():
    made = CaptionRules("ru", variants=2)(sample(**PAIR))
    assert made == (["щи", "щи"], ["cabbage soup", "cabbage soup, soup"], False)


def test_one_more_caption_in_each_language():
    """English is English for the student too; what a sample lacks is asked for in its own language."""
    made = CaptionRules("ru", more_languages=("en", "uk", "it", "en"))(sample(**PAIR, caption_uk="капусняк"))
    assert made.student == ["щи", "cabbage soup", "cabbage soup, soup", "капусняк", "щи"]
    assert made.teacher == ["cabbage soup", "cabbage soup", "cabbage soup, soup", "cabbage soup", "cabbage soup"]
    native = CaptionRules("ru", more_languages=("en", "uk"))(sample(caption_ru="щи", caption_uk="борщ", native=True))
    assert native == (["щи", "щи", "борщ"], ["", "", ""], True)


def test_a_sample_of_another_language():
    """Its own caption is in the first of the languages that it has; English is the last."""
    rules = CaptionRules("ru", native=("own_{language}",), more_languages=("en", "uk", "it"))
    chosen = rules.choose(sample(caption_en="soup", caption_it="zuppa", caption_uk="борщ"))
    assert (chosen.kind, chosen.language, chosen.field) == (Kind.TRANSLATED, "uk", "caption_uk")
    made = rules(sample(caption_en="soup", caption_it="zuppa"))
    assert made == (["zuppa", "soup", "zuppa", "zuppa"], ["soup"] * 4, False)
    native = rules(sample(own_it="zuppa"))
    assert native == (["zuppa"] * 4, [""] * 4, True)
    assert rules.names() == ["own_ru", "caption_ru", "own_uk", "caption_uk", "own_it", "caption_it", "caption_en"]
    with pytest.raises(PeaError, match="no text in field own_ru or caption_ru; add it"):
        rules.text(sample(caption_uk="борщ"), "ru")


def test_fields_of_more_languages():
    """Those with a place for the language in their name, in the order of the language's own; cleaned as plain."""
    rules = CaptionRules(
        "zh",
        native=("text", "own_{language}"),
        translated=("to_{language}",),
        cleaning="chinese",
        more_languages=("uk", "uk"),
    )
    record = dict(text="汤&nbsp;soup", caption_en="soup", own_uk=" ", to_uk="борщ&nbsp;", keywords_uk=["суп&nbsp;"])
    assert rules(sample(**record)).student == ["汤", "борщ", "борщ, суп"]
    assert rules.names_in("uk") == ["own_uk", "to_uk"] and rules.names_in("en") == ["caption_en"]


def test_native_sample_needs_no_english():
    rules = CaptionRules("ru", variants=2)
    assert rules(sample(caption_ru="щи", native=True)) == (["щи", "щи"], ["", ""], True)
    with pytest.raises(PeaError, match=r"a\.tar: sample 1: no text in field caption_en"):
        rules(sample(caption_ru="щи"))
    with pytest.raises(PeaError, match=r"a\.tar: sample 1: no text in field caption_it or caption_en"):
        CaptionRules("it")(sample(caption_ru="щи", native=True))


FIELDS = CaptionRules("ru", native=("text", "alt_{language}"), translated=("to_{language}", "mt"), english="text_en")


@pytest.mark.parametrize(
    ("record", "kind", "field", "native"),
    [
        (dict(text="a", alt_ru="b", to_ru="c", mt="d", text_en="e"), Kind.NATIVE, "text", True),
        (dict(text=" ", alt_ru="b", to_ru="c", mt="d", text_en="e"), Kind.NATIVE, "alt_ru", True),
        (dict(text=None, to_ru="c", mt="d", text_en="e"), Kind.TRANSLATED, "to_ru", False),
        (dict(to_ru=5, mt="d", text_en="e"), Kind.TRANSLATED, "mt", False),
        (dict(to_it="c", text_en="e"), Kind.ENGLISH, "text_en", False),
        (dict(caption_ru="c", caption_en="e"), Kind.NONE, "", False),
        (dict(text="a", text_en="e", native=False), Kind.NATIVE, "text", False),
        (dict(mt="d", native=1), Kind.TRANSLATED, "mt", True),
        (dict(text_en="e", native=True), Kind.ENGLISH, "text_en", False),
        (dict(text="a", text_en="e", native=" False"), Kind.NATIVE, "text", False),
        (dict(mt="d", native="true"), Kind.TRANSLATED, "mt", True),
        (dict(mt="d", native=float("nan")), Kind.TRANSLATED, "mt", False),
        (dict(mt="d", native="None"), Kind.TRANSLATED, "mt", False),
        (dict(text="a", text_en="e", native=float("nan")), Kind.NATIVE, "text", True),
        (dict(text="a", text_en="e", native="0.0"), Kind.NATIVE, "text", False),
    ],
)
def test_the_published_order(record, kind, field, native):
    """Native, translated, English; the record's own flag is stronger than the field."""
    chosen = FIELDS.choose(sample(**record))
    assert (chosen.kind, chosen.field, chosen.native) == (kind, field, native)
    assert chosen.text == record.get(field, "")


@pytest.mark.parametrize(("several", "kind"), [(["щи", "суп"], "a list"), ({"raw": "щи"}, "an object")])
def test_a_field_of_several_texts_is_told(several, kind):
    """As COCO has them; they counted as none. Where no text is looked for they are as welcome as any."""
    rules = CaptionRules("ru", more_languages=("uk",))
    pair = dict(caption_ru="щи", caption_en="soup")
    for field in ("caption_ru", "caption_uk", "caption_en"):
        with pytest.raises(BadSample, match=rf"a\.tar: sample 1: field {field} holds {kind}, not a text; keep one"):
            rules(sample(**pair | {field: several}))
    assert rules(sample(**pair, caption_de=several, caption_uk=[])).student == ["щи", "щи"]


def test_with_english_alone_both_sides_are_asked_in_english():
    """With the keywords of English, and as a parallel pair."""
    made = CaptionRules("ru", variants=2)(sample(caption_en="soup", keywords_en=["hot"], keywords_ru=["суп"]))
    assert made == (["soup", "soup, hot"], ["soup", "soup, hot"], False)


def test_fields_and_keywords_are_cleaned():
    record = sample(
        caption_ru="щи &amp;\n каша ", keywords_ru=["суп\u200b", " ", 3], caption_en="soup&nbsp;", keywords_en=None
    )
    assert CaptionRules("ru", cleaning="plain", variants=2)(record) == (
        ["щи & каша", "щи & каша, суп"],
        ["soup"] * 2,
        False,
    )
    assert CaptionRules("ru")(record).student == ["щи &amp;\n каша "]


def test_the_text_in_a_language():
    rules = CaptionRules("ru", native=("own",), translated=("ru_text",), english="en_text")
    sample = Sample("s", "k", b"", {"ru_text": "кот", "en_text": "cat"})
    assert rules.text(sample, "ru") == "кот" and rules.text(sample, "en") == "cat"
    with pytest.raises(PeaError, match="no text in field own or ru_text"):
        rules.text(Sample("s", "k", b"", {"en_text": "cat"}), "ru")
    with pytest.raises(PeaError, match="no text in field en_text"):
        rules.text(Sample("s", "k", b"", {"ru_text": "кот"}), "en")


@pytest.mark.parametrize("cleaning", ["none", "plain"])
def test_half_a_surrogate_pair_is_dropped(cleaning):
    """It is valid JSON, and could be neither hashed nor tokenized."""
    rules = CaptionRules("ru", cleaning=cleaning, variants=2)
    made = rules(sample(caption_ru="щи\ud83d", keywords_ru=["суп\udc00", "\ud800"], caption_en="soup"))
    assert made.student == ["щи", "щи, суп"]


def test_a_caption_that_cleaning_empties_is_none():
    """As published: a Chinese field without a Chinese character is passed over."""
    rules = CaptionRules("zh", native=("caption_ori",), cleaning="chinese")
    chosen = rules.choose(sample(caption_ori="buy now 50%", caption_zh="蘋果 pie", caption_en="apple pie"))
    assert chosen == (Kind.TRANSLATED, "zh", "caption_zh", "苹果", False)
