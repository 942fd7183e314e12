"""The texts that one picture is asked for with: its name, and its name with some of its keywords."""

import hashlib

from pea_jax.data.samples import Sample

MAX_KEYWORDS = 3


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


def parallel_captions(
    sample: Sample, language: str, *, count: int, english: int = 0, seed: int
) -> tuple[list[str], list[str]]:
    """What the student and the teacher are asked: `count` variants in `language`, then `english` in English for both.

    A native sample without an English caption gets `count` + `english` in `language`, and empty ones for the teacher.

    Raises:
      PeaError: the sample has no caption in `language`, or is not native and has none in English.
    """
    if sample.native and not sample.has_caption("en"):
        return _variants(sample, language, count + english, seed), [""] * (count + english)
    native, both = _variants(sample, language, count, seed), _variants(sample, "en", english, seed)
    return native + both, _variants(sample, "en", count, seed) + both


def _variants(sample: Sample, language: str, count: int, seed: int) -> list[str]:
    return caption_variants(sample.caption(language), sample.keywords(language), count=count, key=sample.key, seed=seed)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
