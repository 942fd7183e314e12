"""From a config to the samples that are trained on, and the rules by which one becomes a training example."""

import dataclasses
import functools
import hashlib
import json

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from pea_jax.data import CaptionRules, EnglishAlone, JoinedSource, open_source
from pea_jax.data.buckets import Size, check_time_ids, check_weights, group_by_bucket, nearest_buckets
from pea_jax.data.captions import Kind
from pea_jax.data.filters import WITHOUT_ENGLISH, Filters, apply_reasons
from pea_jax.data.skipping import LEAST
from pea_jax.data.sources import Source
from pea_jax.data.survey import Bad, Survey, Surveyor, take_survey
from pea_jax.data.text_cleaning import cleaning
from pea_jax.errors import BadSample, PeaError

SPOTS = 32  # samples by which data are known again


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The samples of a config, N in all, of which `kept` ones are used."""

    source: Source
    survey: Survey
    kept: np.ndarray  # bool [N]
    removed: dict[str, int]  # by what reason how many, each sample counted once
    nearest: np.ndarray  # [N] the number of the bucket
    buckets: list[Size]
    weights: dict[Size, float] | None  # how often each bucket is drawn; None: as often as its samples suggest
    english: int = 0  # the last so many are asked in English alone, whatever else they say

    @functools.cached_property
    def rows_by_bucket(self) -> dict[Size, np.ndarray]:
        """The samples of each bucket that has any and is drawn from, 4 bytes each below two thousand millions."""
        small = len(self.kept) <= np.iinfo(np.int32).max
        rows = np.flatnonzero(self.kept).astype(np.int32 if small else np.int64)
        groups = group_by_bucket(rows, self.nearest, self.buckets)
        return groups if self.weights is None else {bucket: groups.get(bucket, rows[:0]) for bucket in self.weights}

    def __str__(self) -> str:
        """In one line, what there is, and what it is learnt from."""
        rows = self.survey.rows[self.kept]
        native, english = rows["native"], rows["caption"] == Kind.ENGLISH
        counts = {"native": native, "parallel": ~native & ~english, "in English alone": english}
        captions = ", ".join(f"{np.count_nonzero(found):,} {name}" for name, found in counts.items())
        bad, bare = np.count_nonzero(self.survey.rows["bad"]), np.count_nonzero(~rows["picture"])
        texts = f"; {bare:,} have no picture" if bare else ""
        return f"{len(rows):,} of {len(self.kept):,} samples are used, {bad:,} are bad; captions: {captions}{texts}"

    def first(self, count: int) -> np.ndarray:
        """The numbers of the first `count` samples that are used."""
        return np.flatnonzero(self.kept)[:count]


def training_set(config: ConfigDict) -> TrainingSet:
    """What a config trains on.

    Raises:
      PeaError: as `look_at` and `check_usable`.
    """
    chosen = look_at(config)
    check_usable(config, chosen)
    return chosen


def look_at(config: ConfigDict) -> TrainingSet:
    """The samples of a config, after one look at each one's record and image header, which is kept.

    From then on `config.data.max_pixels` alone says how large a picture may be, and Pillow's own limit does not hold.

    Raises:
      PeaError: the data cannot be read, or a rule is not known.
    """
    Image.MAX_IMAGE_PIXELS = None
    data, buckets = config.data, buckets_of(config)
    check_time_ids(data.time_ids)
    weights = bucket_weights(config)
    filters, surveyor = _rules(config)
    source, english = _open(config)
    survey = take_survey(source, surveyor, cache_dir=data.cache_dir or None, num_threads=data.num_threads)
    nearest, error = nearest_buckets(survey.rows["width"], np.maximum(survey.rows["height"], 1), buckets)
    kept, removed = apply_reasons(filters.reasons(survey.rows, error), len(survey.rows))
    return TrainingSet(source, survey, kept, removed, nearest, buckets, weights, english)


def _open(config: ConfigDict) -> tuple[Source, int]:
    """The samples that a config trains on, and how many of the last ones are those of `config.data.english`.

    Raises:
      PeaError: the data cannot be read.
    """
    data, rules = config.data, caption_rules(config)
    source = open_source(data_of(config, "train"), data.cache_dir or None)
    if not data.english.split():
        return source, 0
    english = open_source(data.english, data.cache_dir or None)
    hidden = {*rules.names(), *map(rules.keywords_in, rules.languages()), "native"}
    return JoinedSource([source, EnglishAlone(english, hidden - {rules.english})]), len(english)


def check_usable(config: ConfigDict, chosen: TrainingSet) -> None:
    """Refuse a set that is not worth a run.

    Raises:
      PeaError: more samples are bad than `config.data.max_bad_rate` allows, none has a caption in the language
        or in one of the others, one has none where `config.data.missing_caption` calls that an error, no sample is
        left, or none of them is of the kind that the losses are asked of.
    """
    data, rows = config.data, chosen.survey.rows
    train, limit = data.train, data.max_bad_rate
    bad = np.count_nonzero(rows["bad"])
    if bad > limit * len(rows) and bad >= (LEAST if limit else 1):
        first = f"the first: {chosen.survey.bad[0]}"
        raise PeaError(f"{train}: {bad} of {len(rows)} samples are bad, config.data.max_bad_rate={limit}; {first}")
    _check_language(caption_rules(config), rows, train)
    _check_more_languages(caption_rules(config), chosen.survey, train)
    _check_each_caption(config, chosen)
    if not chosen.kept.any():
        reasons = ", ".join(f"{name}: {count}" for name, count in chosen.removed.items() if count) or "no samples"
        advice = f"; add {data.caption_fields.english}, or `native` true to learn from the picture alone"
        advice *= chosen.removed[WITHOUT_ENGLISH] > 0
        first = f"; the first bad one: {chosen.survey.bad[0]}" if bad else ""
        raise PeaError(f"{train}: none of {len(rows)} samples passes config.data.filters ({reasons}){advice}{first}")
    _check_losses(config, chosen)


def _check_losses(config: ConfigDict, chosen: TrainingSet) -> None:
    """A loss of 0 in every step would change nothing, and pictures that are not there would be learnt, and nothing
    would say so."""
    weights, rows = dict(config.loss), chosen.survey.rows[chosen.kept]
    native, bare = rows["native"], np.count_nonzero(~rows["picture"])
    hybrid, of_native = weights.pop("hybrid"), weights.pop("noise")
    of_pairs = any(weights.values())
    if bare and of_native and not hybrid:
        raise PeaError(
            f"{config.data.train}: {bare} of {len(rows)} samples have no picture, and with config.loss.hybrid=False "
            "the noise loss would teach that they are grey; set config.loss.noise=0 or config.loss.hybrid=True"
        )
    if hybrid and not (of_native and native.any() or of_pairs and not native.all()):
        kind, other = ("a pair with English", "noise") if native.all() else ("native", "output")
        raise PeaError(
            f"{config.data.train}: none of {len(native)} samples is {kind}, which the losses with a weight in "
            f"config.loss are asked of; give config.loss.{other} one, or set config.loss.hybrid=False"
        )


def digest(source: Source) -> str:
    """Of some samples, evenly spread: data that were replaced have another one, data that were moved have not, as hosts
    that come and go move them."""
    found = hashlib.sha256()
    for number in np.linspace(0, len(source) - 1, min(SPOTS, len(source))).astype(int):
        try:
            sample = source[number]
        except BadSample:
            continue
        for part in (sample.key.encode(), sample.image or b"", json.dumps(sample.record, sort_keys=True).encode()):
            found.update(hashlib.sha256(part).digest())
    return found.hexdigest()[:16]


def _rules(config: ConfigDict) -> tuple[Filters, Surveyor]:
    filters = dict(config.data.filters)
    fields = {name: filters.pop(name) for name in ("aesthetic_field", "watermark_field")}
    return Filters(max_pixels=config.data.max_pixels, **filters), Surveyor(caption_rules(config), **fields)


def _check_language(captions: CaptionRules, rows: np.ndarray, train: str) -> None:
    """English alone is a set too, but whoever names no field of the language that exists does not want it."""
    own = (rows["caption"] == Kind.NATIVE) | (rows["caption"] == Kind.TRANSLATED)
    readable = np.count_nonzero(rows["bad"] == Bad.NOTHING)
    if readable and not own.any():
        fields = " or ".join(captions.names()[:-1]) or "none named"
        raise PeaError(
            f"{train}: none of {readable} samples has text in a field of the language ({fields}); set "
            "config.data.caption_fields (its `translated` may be the English field, to learn from English alone)"
        )


def _check_more_languages(captions: CaptionRules, survey: Survey, train: str) -> None:
    for language in captions.more_languages:
        if language not in survey.told and not np.all(survey.rows["bad"]):
            fields = " or ".join(captions.names_in(language)) or "none of config.data.caption_fields has {language}"
            raise PeaError(
                f"{train}: no sample has text in a field of {language!r} ({fields}); take it out of "
                "config.data.more_languages, or set config.data.caption_fields"
            )


def _check_each_caption(config: ConfigDict, chosen: TrainingSet) -> None:
    rule, rows = config.data.missing_caption, chosen.survey.rows
    if rule not in ("english", "error"):
        raise PeaError(f"config.data.missing_caption={rule!r}: choose from english, error")
    own = (rows["caption"] == Kind.NATIVE) | (rows["caption"] == Kind.TRANSLATED)
    asked = np.arange(len(rows)) < len(rows) - chosen.english
    lacking = np.flatnonzero(asked & ~own & (rows["bad"] == Bad.NOTHING))
    if rule == "error" and len(lacking):
        first, fields = chosen.source[lacking[0]], " or ".join(caption_rules(config).names()[:-1])
        others = f" ({len(lacking)} such samples)" if len(lacking) > 1 else ""
        raise PeaError(
            f"{first.shard}: sample {first.key}: no text in field {fields}{others}; add it or leave the sample out, "
            "name the shard in config.data.english, or set config.data.missing_caption=english"
        )


def caption_rules(config: ConfigDict) -> CaptionRules:
    """Which captions of a sample are used."""
    fields = config.data.caption_fields
    cleaning(config.data.cleaning)  # refused at once, not in a thread of the loader
    return CaptionRules(
        language=config.language,
        native=tuple(fields.native.split()),
        translated=tuple(fields.translated.split()),
        english=fields.english,
        keywords=fields.keywords,
        cleaning=config.data.cleaning,
        variants=config.data.caption_variants,
        more_languages=tuple(config.data.more_languages.split()),
        seed=config.seed,
    )


def bucket_weights(config: ConfigDict) -> dict[Size, float] | None:
    """How often each bucket is drawn that is; None: as often as its samples suggest.

    Raises:
      PeaError: they do not go with the buckets.
    """
    buckets, weights = buckets_of(config), config.data.bucket_weights
    check_weights(weights, buckets)
    return {bucket: float(weight) for bucket, weight in zip(buckets, weights, strict=False) if weight} or None


def data_of(config: ConfigDict, name: str) -> str:
    """The shard patterns of `config.data.train` or `config.data.validation`.

    Raises:
      PeaError: there are none.
    """
    if not config.data[name].split():
        raise PeaError(f"config.data.{name}: no data given; name tar shards or a folder")
    return config.data[name]


def buckets_of(config: ConfigDict) -> list[Size]:
    """(width, height) of the buckets."""
    return [(width, height) for width, height in config.data.buckets]
