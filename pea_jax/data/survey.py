"""What is known of every sample without decoding it: one pass over records and image headers, made once and kept.

Filters, buckets and counts are arithmetic on it. It is kept part by part (shard by shard), so that a pass that was
interrupted goes on where it was, and a part that changed is gone through again alone.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import enum
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pea_jax.data import kept_files
from pea_jax.data.captions import CaptionRules
from pea_jax.data.samples import Part, Sample
from pea_jax.data.sources import Source
from pea_jax.errors import BadSample
from pea_jax.report import counting

ROW = np.dtype(
    [
        ("width", "u2"),
        ("height", "u2"),
        ("aesthetic", "f4"),  # nan: not in the record
        ("watermark", "f4"),
        ("caption", "u1"),  # `captions.Kind`
        ("native", "?"),
        ("english", "?"),  # whether the teacher has a caption
        ("bad", "u1"),  # `Bad`
        ("picture", "?"),  # whether it has one
    ]
)
_VERSION = 4  # of the format
_CHUNK = 256  # samples a task of a thread
_SPOTS = 1000  # samples of a part by which it is known whether they are as they were
_NAMED = 100  # bad samples of a part whose message is kept
_LARGEST = np.iinfo(np.uint16).max


class Bad(enum.IntEnum):
    """What is wrong with a sample."""

    NOTHING = 0
    SAMPLE = 1  # image or record cannot be read, the record is no JSON object, or a caption no text
    IMAGE = 2  # the image's header


@dataclasses.dataclass(frozen=True)
class Survey:
    """`rows` [N] of dtype `ROW`, 17 bytes a sample; `bad` names the first bad samples of each part, and `told` says how
    many samples have a caption in each of the rules' `more_languages`."""

    rows: np.ndarray
    bad: list[str]
    told: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Surveyor:
    """Looks at samples, with the rules by which captions are chosen and the names of the score fields."""

    captions: CaptionRules
    aesthetic_field: str = "aesthetic_score"
    watermark_field: str = "watermark"

    def key(self) -> str:
        """Another one wherever another row could come out."""
        names = ("language", "native", "translated", "english", "cleaning", "more_languages")
        rules = {name: getattr(self.captions, name) for name in names}
        text = json.dumps([_VERSION, rules, self.aesthetic_field, self.watermark_field])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def look(self, source: Source, numbers: range) -> Survey:
        """The survey of these samples."""
        rows, bad, told = np.zeros(len(numbers), ROW), [], collections.Counter[str]()
        languages = set(self.captions.more_languages)
        for place, number in enumerate(numbers):
            kind = Bad.SAMPLE
            try:
                sample = source.head(number)
                said = self._said(sample)
                found = [language for language in languages if self.captions.text_in(sample, language)]
                kind = Bad.IMAGE
                rows[place] = (*_size(source, number, sample), *said)
                told.update(found)
            except BadSample as error:
                rows[place]["bad"] = kind
                bad.append(str(error))
        return Survey(rows, bad, dict(told))

    def _said(self, sample: Sample) -> tuple[Any, ...]:
        """The fields of `ROW` behind width and height."""
        scores = (_score(sample.record.get(name)) for name in (self.aesthetic_field, self.watermark_field))
        chosen, english = self.captions.choose(sample), bool(self.captions.english_text(sample))
        return *scores, chosen.kind, chosen.native, english, Bad.NOTHING, sample.has_picture


@dataclasses.dataclass(frozen=True)
class Surveyed:
    """The samples of a source that have the `rows` of a survey.

    A picture of another size than it had then is a bad sample: its bucket may be another, and a batch is of one.
    """

    source: Source
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Sample:
        sample, (width, height) = self.source[number], self.rows[["width", "height"]][number].tolist()
        if (size := sample.size()) != (width, height):
            raise BadSample(
                f"{sample.shard}: sample {sample.key}: now {size[0]}x{size[1]} pixels, {width}x{height} when all were "
                "looked at; remove the .pea_survey beside it, and they are looked at again"
            )
        return sample


def take_survey(source: Source, surveyor: Surveyor, *, cache_dir: str | None = None, num_threads: int = 16) -> Survey:
    """The survey of a source; read where it was kept, else made, with a progress bar.

    It is kept in `PART.KEY.pea_survey` beside each part or, where that cannot be written, in `cache_dir`. Of pictures
    that are files of their own some are looked at again, and all if one of these was mended or replaced since.

    Raises:
      PeaError: a part cannot be read at all.
    """
    parts, ends = list(source.parts), np.cumsum([part.count for part in source.parts]).tolist()
    places = [kept_files.places(part.path, f".{surveyor.key()}.pea_survey", cache_dir) for part in parts]
    surveys = [_read(part, paths) for part, paths in zip(parts, places, strict=True)]
    for number, part in enumerate(parts):
        survey, start = surveys[number], ends[number] - part.count
        if survey is not None and part.loose and _is_outdated(source, surveyor, survey, start, num_threads):
            surveys[number] = None
    missing = [number for number, survey in enumerate(surveys) if survey is None]
    ranges = [range(ends[number] - parts[number].count, ends[number]) for number in missing]
    for number, made in zip(missing, _look_at(source, surveyor, ranges, num_threads), strict=True):
        kept_files.write(places[number], _pack(parts[number], made))
        surveys[number] = made
    found = [survey for survey in surveys if survey is not None]
    return _joined(found)


def _is_outdated(source: Source, surveyor: Surveyor, survey: Survey, start: int, num_threads: int) -> bool:
    """Whether pictures of a part, whose samples begin at `start`, were mended or replaced since; what was lost since is
    left to the run, which takes others in its place and may so go on in the same order."""
    groups = np.arange(len(survey.rows)), np.flatnonzero(survey.rows["bad"])
    spots = np.unique(np.concatenate([group[:: max(1, len(group) // _SPOTS)] for group in groups])).tolist()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        looks = pool.map(lambda spot: surveyor.look(source, range(start + spot, start + spot + 1)).rows[0], spots)
        kept = (survey.rows[spot] for spot in spots)
        return any(not new["bad"] and new.tobytes() != old.tobytes() for new, old in zip(looks, kept, strict=True))


def _look_at(source: Source, surveyor: Surveyor, ranges: list[range], num_threads: int) -> Iterator[Survey]:
    """The survey of each range of samples, in order."""
    if not ranges:
        return
    total = sum(map(len, ranges))
    with (
        concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
        counting(total, "looking at records and image headers") as advance,
    ):
        for numbers in ranges:
            chunks = [numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK)]
            looks = []
            for look in pool.map(functools.partial(surveyor.look, source), chunks):
                looks.append(look)
                advance(len(look.rows))
            made = _joined(looks)
            yield dataclasses.replace(made, bad=made.bad[:_NAMED])


def _size(source: Source, number: int, head: Sample) -> tuple[int, int]:
    """Width and height; some images have longer headers, and some kinds have to be read as a whole."""
    try:
        width, height = head.size()
    except BadSample:
        width, height = source[number].size()
    if max(width, height) > _LARGEST:
        raise BadSample(f"{head.shard}: sample {head.key}: {width}x{height} pixels are too many on one side")
    return width, height


def _joined(surveys: list[Survey]) -> Survey:
    rows = np.concatenate([np.zeros(0, ROW), *(survey.rows for survey in surveys)])
    told = sum((collections.Counter(survey.told) for survey in surveys), collections.Counter[str]())
    return Survey(rows, [text for survey in surveys for text in survey.bad], dict(told))


def _pack(part: Part, survey: Survey) -> bytes:
    metadata = dict(stamp=part.stamp, bad=json.dumps(survey.bad), told=json.dumps(survey.told))
    return save({"rows": survey.rows.view(np.uint8)}, metadata)


def _read(part: Part, paths: list[pathlib.Path]) -> Survey | None:
    for path in paths:
        with contextlib.suppress(OSError, SafetensorError), safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            if metadata["stamp"] == part.stamp:
                rows = file.get_tensor("rows").view(ROW)
                return Survey(rows, json.loads(metadata["bad"]), json.loads(metadata["told"]))
    return None


def _score(found: Any) -> float:
    """nan where it is none; numbers may be written as texts, as tables of other programs have them."""
    with contextlib.suppress(OverflowError, ValueError):  # JSON has integers of any length
        return float(np.clip(float(found), -1e38, 1e38)) if isinstance(found, int | float | str) else np.nan
    return np.nan
