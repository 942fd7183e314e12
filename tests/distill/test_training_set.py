"""From a config to what is trained on: the emoji as ever, and toys for every rule."""

import json
import pathlib

import fsspec
import numpy as np
import pytest
from PIL import Image

from pea_jax import config as configs
from pea_jax.data.captions import Kind
from pea_jax.distill.judging import read_concepts
from pea_jax.distill.pictures import sample_prompts
from pea_jax.distill.training_set import caption_rules, digest, look_at, training_set
from pea_jax.errors import PeaError
from tests.commands import ROOT
from tests.data.conftest import png, write_shard  # noqa: F401 (a fixture)

PAIR = dict(caption_ru="щи", caption_en="soup")


def members(size: tuple[int, int] = (64, 64), **record) -> dict[str, bytes]:
    return {"png": png(size=size), "json": json.dumps(PAIR | record).encode()}


@pytest.fixture
def config(tmp_path):
    config = configs.emoji("ru")
    config.data.train, config.data.english = str(tmp_path / "a.tar"), ""
    config.data.buckets = ((64, 64), (96, 64))
    config.batch_size = 2
    return config


def read_prompts(config):
    return sample_prompts(config, training_set(config))


@pytest.mark.parametrize("read", [look_at, read_prompts, read_concepts])
def test_what_is_kept_of_remote_shards_lies_where_the_config_says(config, write_shard, tmp_path, monkeypatch, read):  # noqa: F811
    """Made once for all that a command reads, and nothing of it in the user's home."""
    shard = pathlib.Path(write_shard("a.tar", {name: members() for name in "abcd"}))
    fsspec.filesystem("memory").pipe_file("/kept/a.tar", shard.read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    config.data.train = config.data.validation = "memory://kept/a.tar"
    config.data.cache_dir = str(tmp_path / "cache")
    read(config)
    assert [path.name for path in (tmp_path / "cache").rglob("*.pea_index")] == ["a.tar.pea_index"]
    assert not (tmp_path / "home").exists()


def test_how_large_a_picture_may_be_the_config_says_and_not_pillow(config, write_shard, monkeypatch, recwarn):  # noqa: F811
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    config.data.max_pixels = 64 * 64
    write_shard("a.tar", {"a": members((30, 40)), "b": members(), "c": members((96, 64)), "d": members((64, 65))})
    chosen = training_set(config)
    assert chosen.kept.tolist() == [True, True, False, False] and chosen.removed["more than 4096 pixels"] == 2
    assert not recwarn.list


def test_the_published_filters_and_order(config, write_shard):  # noqa: F811
    """Aesthetic 6, watermark 0.5 and 640 * 640 pixels, as in configs without a preset of their own."""
    config.data.filters = configs.base("ru").data.filters
    config.data.caption_fields.native = "caption_ori"
    config.data.filters.min_pixels = 64 * 64
    write_shard(
        "a.tar",
        {
            "a": members(aesthetic_score=6, watermark=0.5),
            "b": members(aesthetic_score=5.9),
            "c": members(aesthetic_score=1, caption_ori="каша"),
            "d": members((63, 64)),
            "e": members((96, 64)),
            "f": members(caption_en=None),
            "g": members((640, 64)),
            "h": {**members(), "png": b"no picture"},
        },
    )
    chosen = training_set(config)
    assert chosen.kept.tolist() == [True, False, True, False, True, False, False, False]
    assert {reason: count for reason, count in chosen.removed.items() if count} == {
        "image header cannot be read": 1,
        "parallel pair without English": 1,
        "fewer than 4096 pixels": 1,
        "aspect far from every bucket": 1,
        "aesthetic score below 6": 1,
    }
    rows = chosen.rows_by_bucket
    assert {bucket: found.tolist() for bucket, found in rows.items()} == {(64, 64): [0, 2], (96, 64): [4]}
    assert all(found.dtype == np.int32 for found in rows.values())
    assert chosen.first(2).tolist() == [0, 2]
    assert str(chosen) == "3 of 8 samples are used, 1 are bad; captions: 1 native, 2 parallel, 0 in English alone"
    assert chosen.survey.rows["caption"][[0, 2]].tolist() == [Kind.TRANSLATED, Kind.NATIVE]
    assert chosen.survey.rows["native"][[0, 2]].tolist() == [False, True]


def test_native_are_those_that_are_learnt_as_such(config, write_shard):  # noqa: F811
    """The record's own flag counts, not the field that its caption is from."""
    config.data.caption_fields.native = "caption_ori"
    config.data.missing_caption = "english"
    own = members(native=True), members(caption_ori="каша", native=False), members(caption_ru=None)
    write_shard("a.tar", dict(zip("abc", own, strict=True)))
    counts = "1 native, 1 parallel, 1 in English alone"
    assert str(training_set(config)) == f"3 of 3 samples are used, 0 are bad; captions: {counts}"


def test_shards_of_which_english_alone_is_used(config, write_shard):  # noqa: F811
    """What they say in the language, and that they are native, is as if it were not there."""
    config.data.english = write_shard("b.tar", {"x": members(), "y": members(native=True, caption_en="borscht")})
    write_shard("a.tar", {"a": members()})
    chosen, rules = training_set(config), caption_rules(config)
    counts = "0 native, 1 parallel, 2 in English alone"
    assert str(chosen) == f"3 of 3 samples are used, 0 are bad; captions: {counts}"
    texts = [rules(chosen.source[row]) for row in chosen.rows_by_bucket[64, 64]]
    assert [captions.student[0] for captions in texts] == ["щи", "soup", "borscht"]
    assert [captions.teacher[0] for captions in texts] == ["soup", "soup", "borscht"]
    assert not any(captions.native for captions in texts)
    write_shard("a.tar", {"a": members(), "b": members(caption_ru=None)})
    with pytest.raises(
        PeaError, match=r"a\.tar: sample b: no text in field caption_ru; add it or leave the sample out, name"
    ):
        training_set(config)


def test_texts_without_pictures(config, write_shard, tmp_path):  # noqa: F811
    """Beside pictures, in the bucket nearest to a square; those that would be learnt from the picture are left out."""
    texts = [PAIR, PAIR | dict(native=True), dict(caption_ru="борщ"), PAIR | dict(caption_en="borscht")]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    config.data.train = f"{write_shard('a.tar', {'a': members((96, 64))})} {tmp_path}/texts.jsonl"
    config.data.filters.update(min_pixels=64 * 64, max_aspect_error=0.1)
    chosen = training_set(config)
    counts = "0 native, 3 parallel, 0 in English alone; 2 have no picture"
    assert str(chosen) == f"3 of 5 samples are used, 0 are bad; captions: {counts}"
    assert {bucket: rows.tolist() for bucket, rows in chosen.rows_by_bucket.items()} == {
        (64, 64): [1, 4],
        (96, 64): [0],
    }
    assert {reason: count for reason, count in chosen.removed.items() if count} == {
        "native without a picture": 1,
        "parallel pair without English": 1,
    }
    config.loss.hybrid = False
    with pytest.raises(PeaError, match="2 of 3 samples have no picture, .* set config.loss.noise=0 or"):
        training_set(config)
    config.loss.noise = 0.0
    before = digest(chosen.source)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts[::-1]))
    assert digest(training_set(config).source) != before


def test_more_languages(config, write_shard):  # noqa: F811
    """None of them may be missing everywhere; shards of which English alone is used say nothing in these either."""
    config.data.english = write_shard("b.tar", {"x": members(caption_uk="борщ")})
    write_shard("a.tar", {"a": members(caption_uk="капусняк"), "b": members()})
    config.data.caption_variants, config.data.more_languages = 1, "en uk"
    chosen, rules = training_set(config), caption_rules(config)
    assert chosen.survey.told == {"en": 3, "uk": 1}
    students = [rules(chosen.source[row]).student for row in range(3)]
    assert students == [["щи", "soup", "капусняк"], ["щи", "soup", "щи"], ["soup", "soup", "soup"]]
    assert [rules(chosen.source[row]).teacher for row in range(3)] == [["soup"] * 3] * 3
    config.data.more_languages = "en it"
    with pytest.raises(PeaError, match=r"a\.tar: no sample has text in a field of 'it' \(caption_it\); take it out of"):
        training_set(config)
    config.data.caption_fields.translated = "caption_ru"
    with pytest.raises(PeaError, match=r"of 'it' \(none of config\.data\.caption_fields has \{language\}\)"):
        training_set(config)


def test_the_demo_holds_names_out_and_nothing_else():
    """Every concept is trained on, the held-out ones without a word of the language."""
    config = configs.emoji("ru")
    chosen, rules = training_set(config), caption_rules(config)
    assert str(chosen).endswith("captions: 0 native, 1,450 parallel, 156 in English alone")
    held_out = [rules(chosen.source[row]) for row in range(1450, 1606)]
    assert all(captions.student == captions.teacher for captions in held_out)


def test_given_weights(config, write_shard):  # noqa: F811
    """A bucket of weight 0 is not drawn from; one without samples is there, for the loader to refuse."""
    write_shard("a.tar", {key: members() for key in "abc"} | {"d": members((96, 64))})
    assert training_set(config).weights is None
    config.data.bucket_weights = (1.0, 0.0)
    chosen = training_set(config)
    assert chosen.weights == {(64, 64): 1} and chosen.rows_by_bucket.keys() == {(64, 64)}
    config.data.buckets = ((64, 64), (64, 96))
    config.data.bucket_weights = (3.0, 1.0)
    rows = training_set(config).rows_by_bucket
    assert {bucket: len(found) for bucket, found in rows.items()} == {(64, 64): 4, (64, 96): 0}


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (0.0, 0.0)])
def test_weights_that_do_not_go_with_the_buckets(config, weights):
    config.data.bucket_weights = weights
    with pytest.raises(PeaError, match=r"config.data.bucket_weights=\(.*\): must be 2 numbers, one for each"):
        training_set(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("time_ids", "sdlx", "config.data.time_ids='sdlx': not known; choose from sdxl, published"),
        ("cleaning", "plane", "config.data.cleaning='plane': not known"),
        ("filters.unscored", "no", "config.data.filters.unscored='no': choose from keep, drop"),
    ],
)
def test_rules_that_are_not_known(config, field, value, message):
    config.data.update_from_flattened_dict({field: value})
    with pytest.raises(PeaError, match=message):
        training_set(config)


def test_nothing_is_left(config, write_shard):  # noqa: F811
    write_shard("a.tar", {"a": members((9, 9)), "b": members(caption_en="")})
    config.data.filters.min_side = 10
    with pytest.raises(
        PeaError,
        match="none of 2 samples .*parallel pair without English: 1, a side below 10 pixels: 1.; add caption_en",
    ):
        training_set(config)
    write_shard("a.tar", {"a": members((9, 9))})
    with pytest.raises(PeaError, match="none of 1 samples .*a side below 10 pixels: 1.$"):
        training_set(config)
    write_shard("a.tar", {"a": members() | {"json": b"[1]"}})
    with pytest.raises(
        PeaError, match="none of 1 samples .*read: 1.; the first bad one: .*a.tar: sample a: the record is"
    ):
        training_set(config)


def test_no_loss_is_asked_of_any_sample(config, write_shard):  # noqa: F811
    """Nothing would be learnt, with a loss of 0."""
    noise_alone = dict(noise=1.0, output=0.0, features=0.0, conditioning=0.0, contrast=0.0)
    write_shard("a.tar", {"a": members(), "b": members()})
    config.loss.update(noise_alone)
    with pytest.raises(PeaError, match=r"none of 2 samples is native, .*config.loss.output one, .*hybrid=False"):
        training_set(config)
    config.loss.hybrid = False
    training_set(config)
    config.loss.update(hybrid=True, noise=0.0, features=1.0)
    training_set(config)
    write_shard("a.tar", {"a": members(native=True)})
    with pytest.raises(PeaError, match=r"none of 1 samples is a pair with English, .*config.loss.noise one"):
        training_set(config)
    config.loss.noise = 1.0
    training_set(config)


def test_too_many_bad_samples(config, write_shard):  # noqa: F811
    """Four in a small set are borne; without a rate none is."""
    good, bad = {f"g{number}": members() for number in range(9)}, {**members(), "png": b"no picture"}
    write_shard("a.tar", good | {f"b{number}": bad for number in range(4)})
    assert training_set(config).kept.sum() == 9
    config.data.max_bad_rate = 0.0
    with pytest.raises(
        PeaError, match=r"4 of 13 samples are bad, config.data.max_bad_rate=0.0; the first: .*sample b0"
    ):
        training_set(config)
    write_shard("a.tar", good | {f"b{number}": bad for number in range(5)})
    config.data.max_bad_rate = 0.35
    with pytest.raises(PeaError, match="5 of 14 samples are bad"):
        training_set(config)
    config.data.max_bad_rate = 0.36
    assert training_set(config).kept.sum() == 9


def test_a_language_that_the_data_do_not_have(config, write_shard):  # noqa: F811
    """Though all of it could be learnt in English."""
    write_shard("a.tar", {"a": members()})
    config.language = "it"
    with pytest.raises(PeaError, match=r"none of 1 samples has text in a field of the language \(caption_it\); set"):
        training_set(config)
    config.data.caption_fields.translated = "caption_en"
    assert training_set(config).kept.all()


@pytest.mark.parametrize("language", ["ru", "zh"])
def test_the_emoji_are_all_used_in_their_order(language, tmp_path):
    """So that the preset's batches are what they were before there were rules."""
    config = configs.emoji(language)
    for shard in (ROOT / "assets" / "emoji").glob("emoji-train-*.tar"):
        (tmp_path / shard.name).symlink_to(shard)
    config.data.train, config.data.english = str(tmp_path / "emoji-train-{00000..00001}.tar"), ""
    chosen = training_set(config)
    assert list(chosen.rows_by_bucket) == [(64, 64)] and chosen.weights is None
    np.testing.assert_array_equal(chosen.rows_by_bucket[64, 64], np.arange(1450))


def test_held_out_captions_without_english(config, write_shard):  # noqa: F811
    """They are passed over, as in training; where all are, nobody would miss them before the end of the run."""
    write_shard("a.tar", {name: members() for name in "abc"})
    lacking, config.sample.count = {f"a{number:02}": members(caption_en=None) for number in range(40)}, 4
    config.data.validation = write_shard("val.tar", {**lacking, "b": members(caption_en="held out")})
    assert read_prompts(config) == [("щи", "soup")] * 3 + [("щи", "held out")]
    config.data.validation = write_shard("val.tar", lacking)
    with pytest.raises(
        PeaError, match=r"validation, which may be empty: .*val\.tar: sample a00: no text in field caption_en"
    ):
        read_prompts(config)


def test_retrieval_of_pictures_that_cannot_be_told_apart(config, write_shard):  # noqa: F811
    """Those of equal pixels are one picture, as where a set is validated on itself."""
    write_shard("a.tar", {"a": members(), "b": members() | {"png": png((9, 9, 9), (64, 64))}})
    config.data.validation = config.data.train
    assert [concept.key for concepts in read_concepts(config) for concept in concepts] == ["a", "b", "a", "b"]
    config.data.validation = write_shard("val.tar", {"b": members()})
    with pytest.raises(PeaError, match="two pictures have the key b, and retrieval would take one for the other"):
        read_concepts(config)
    config.picture_size = (64, 96)
    with pytest.raises(PeaError, match=r"a\.tar: sample a: 64x64 pixels, and .* config.picture_size=\(64, 96\)"):
        read_concepts(config)


def test_the_captions_that_are_drawn_are_of_samples_that_are_trained_on(config, write_shard):  # noqa: F811
    """However many are left out before them, as those of a set that is translated in part."""
    left_out = {f"a{number:02}": members(caption_en=None, caption_ru=f"щи {number}") for number in range(40)}
    write_shard("a.tar", {**left_out, **{name: members(caption_en=f"soup {name}") for name in "bcd"}})
    config.data.validation, config.sample.count = "", 2
    assert read_prompts(config) == [("щи", "soup b"), ("щи", "soup c")]
