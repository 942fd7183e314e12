"""The texts that one picture is asked for with: which field of the record they come from, and with which keywords."""

import collections
import dataclasses
import enum
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from pea_jax.data.samples import Sample
from pea_jax.data.text_cleaning import cleaning
from pea_jax.errors import BadSample

MAX_KEYWORDS = 3
PLACE = "{language}"  # in the name of a field; braces around anything else are part of the name
NO = ("", "0", "0.0", "f", "false", "n", "no")  # flags that are written as texts
ABSENT = ("nan", "none", "null")  # what is not there, as Python, pandas and JSON say it


class Kind(enum.IntEnum):
    """Where the student's caption comes from, in the order in which they are tried."""

    NONE = 0
    NATIVE = 1
    TRANSLATED = 2
    ENGLISH = 3


class Chosen(NamedTuple):
    """A sample's own caption, for the student; `native`: learnt from the picture, else from the teacher."""

    kind: Kind
    language: str
    field: str
    text: str
    native: bool


class Captions(NamedTuple):
    """As many texts for the student as for the teacher, pair by pair; `native` as in `Chosen`."""

    student: list[str]
    teacher: list[str]
    native: bool


@dataclasses.dataclass(frozen=True)
class CaptionRules:
    """What a record's captions are called, and what is made of them.

    The first field that has text after cleaning is taken: those of `native`, of `translated`, and last the English one,
    as published (PEA-Diffusion, utils/custom_dataset_sdxl.py). `{language}` in a name stands for the language; before
    the English field it stands for each of `more_languages`, too. A sample is native if its caption comes from a field
    of `native`, unless the record says otherwise in its field `native`; one with nothing but an English caption is a
    parallel pair.

    `cleaning` is a name in `text_cleaning.CLEANINGS`; other languages are cleaned as "plain", or not at all by "none".
    `variants` captions are made in the language, and one more for each of `more_languages`, with `seed` as in
    `caption_variants`; a language named twice gives two.
    """

    language: str
    native: tuple[str, ...] = ()
    translated: tuple[str, ...] = ("caption_{language}",)
    english: str = "caption_en"
    keywords: str = "keywords_{language}"
    cleaning: str = "none"
    variants: int = 1
    more_languages: tuple[str, ...] = ()
    seed: int = 0

    def choose(self, sample: Sample) -> Chosen:
        """The sample's own caption; of kind NONE, with no text, if the record has none of the fields.

        Raises:
          BadSample: a field that was looked at holds no text but a list or an object; so in all that follow.
        """
        for language in self.languages():
            for kind, fields in ((Kind.NATIVE, self.native), (Kind.TRANSLATED, self.translated)):
                for name in self._names(fields, language):
                    if text := self._text(sample, name, language):
                        native = flag(sample.record.get("native"), kind is Kind.NATIVE)
                        return Chosen(kind, language, name, text, native)
        if text := self.english_text(sample):
            return Chosen(Kind.ENGLISH, "en", self.english, text, False)
        return Chosen(Kind.NONE, "", "", "", False)

    def english_text(self, sample: Sample) -> str:
        """The teacher's caption, "" if there is none."""
        return self.text_in(sample, "en")

    def text_in(self, sample: Sample, language: str) -> str:
        """The caption in one of the languages, "" if there is none."""
        found = (self._text(sample, name, language) for name in self.names_in(language))
        return next(filter(None, found), "")

    def text(self, sample: Sample, language: str) -> str:
        """The caption in one of the languages, or for "en" the teacher's.

        Raises:
          BadSample: there is none.
        """
        if not (found := self.text_in(sample, language)):
            raise self._lacks(sample, " or ".join(self.names_in(language)))
        return found

    def keywords_of(self, sample: Sample, language: str) -> list[str]:
        """The field of keywords in that language, a list of texts; data without keywords has none."""
        found = sample.record.get(self.keywords_in(language))
        rule = self._cleaning_of(language)
        return [text for word in found if (text := _cleaned(word, rule))] if isinstance(found, list) else []

    def __call__(self, sample: Sample) -> Captions:
        """What the student and the teacher are asked: `variants` in the language, then those of `more_languages`.

        What a sample does not have in one of these it is asked for by its own caption once more. A native sample
        without an English caption gets empty ones for the teacher.

        Raises:
          BadSample: the sample has no caption at all, or is not native and has none in English.
        """
        chosen, english = self.choose(sample), self.english_text(sample)
        if not chosen.text:
            raise self._lacks(sample, " or ".join(self.names()))
        if not english and not chosen.native:
            raise self._lacks(sample, self.english)
        own = (chosen.text, self.keywords_of(sample, chosen.language))
        told = (english, self.keywords_of(sample, "en"))
        student, teacher = self._make(sample, *own, self.variants), self._make(sample, *told, self.variants)
        for other, count in collections.Counter(self.more_languages).items():
            text = self.text_in(sample, other)
            student += self._make(sample, *((text, self.keywords_of(sample, other)) if text else own), count)
            teacher += self._make(sample, *told, count)
        return Captions(student, teacher if english else [""] * len(student), chosen.native)

    def names(self) -> list[str]:
        """The fields in which the student's caption is looked for, in order."""
        return [*(name for language in self.languages() for name in self.names_in(language)), self.english]

    def names_of(self, kind: Kind) -> list[str]:
        """The fields in which captions of a kind are looked for, in order."""
        if kind is Kind.ENGLISH:
            return [self.english]
        fields = self.native if kind is Kind.NATIVE else self.translated
        return [name for language in self.languages() for name in self._names(fields, language)]

    def names_in(self, language: str) -> list[str]:
        """The fields in which a caption in one of the languages is looked for, in order."""
        return [self.english] if language == "en" else self._names((*self.native, *self.translated), language)

    def keywords_in(self, language: str) -> str:
        """The field of keywords in a language."""
        return self.keywords.replace(PLACE, language)

    def languages(self) -> list[str]:
        """The language, and those of `more_languages` but English, which has a field of its own."""
        more = [language for language in self.more_languages if language != "en"]
        return list(dict.fromkeys([self.language, *more]))

    def _names(self, fields: Iterable[str], language: str) -> list[str]:
        """What is called the same in every language is in the first."""
        every = language == self.language
        return [field.replace(PLACE, language) for field in fields if every or PLACE in field]

    def _text(self, sample: Sample, field: str, language: str) -> str:
        """What a field says, "" where it says nothing.

        Raises:
          BadSample: it holds several texts, as COCO has them; to learn from none of them would go unnoticed.
        """
        found = sample.record.get(field)
        if found and isinstance(found, list | dict):
            kind = "a list" if isinstance(found, list) else "an object"
            raise BadSample(
                f"{sample.shard}: sample {sample.key}: field {field} holds {kind}, not a text; keep one text in it"
            )
        return _cleaned(found, self._cleaning_of(language))

    def _cleaning_of(self, language: str) -> str:
        return self.cleaning if language == self.language or self.cleaning == "none" else "plain"

    def _make(self, sample: Sample, name: str, keywords: list[str], count: int) -> list[str]:
        return caption_variants(name, keywords, count=count, key=sample.key, seed=self.seed)

    def _lacks(self, sample: Sample, fields: str) -> BadSample:
        return BadSample(
            f"{sample.shard}: sample {sample.key}: no text in field {fields}; add it or leave the sample out"
        )


def caption_variants(name: str, keywords: list[str], *, count: int, key: str, seed: int) -> list[str]:
    """The same `count` captions at every call, so that their text states can be computed once.

    Variant 0 is the name. The others are the name followed by 1 to 3 keywords, drawn and ordered by hashing seed, key
    and variant; the last quarter of the variants leave the name out. How many keywords variant v asks for depends on no
    language, so variant v in two languages is a parallel pair. Keywords equal to the name are not used.
    """
    words = [word for word in keywords if word.casefold() != name.casefold()]
    named = count - count // 4
    captions = [name][:count]
    for variant in range(1, count):
        draw = f"{seed}:{key}:{variant}"
        order = sorted((_hash(f"{draw}:{word}"), word) for word in words)
        chosen = [word for _, word in order[: 1 + _hash(draw) % MAX_KEYWORDS]]
        captions.append(", ".join([name, *chosen] if variant < named else chosen) or name)
    return captions


def _cleaned(found: Any, rule: str) -> str:
    if not isinstance(found, str):
        return ""
    # JSON may hold half of a surrogate pair, which can be neither hashed nor tokenized
    text = cleaning(rule)(found.encode(errors="ignore").decode())
    return text if text.strip() else ""


def flag(found: Any, default: bool) -> bool:
    """A record's field as a flag, `default` where it has none; tables of other programs write flags as texts."""
    text = str(found).strip().casefold()
    if text in ABSENT:
        return default
    return text not in NO if isinstance(found, str) else bool(found)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
