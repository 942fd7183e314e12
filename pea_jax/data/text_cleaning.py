"""Captions as they come from the web, made fit to be learnt from; which way is chosen by name."""

import functools
import html
import re
import unicodedata
from collections.abc import Callable

from pea_jax.errors import PeaError

# Invisible, and not part of any word; the joiners U+200C and U+200D are, in Persian, Hindi and emoji. U+200B is noise
# but behind letters of Thai, Lao, Burmese and Khmer, which have it between words in the place of a space.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]|(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b"
)
# The published filter (PEA-Diffusion, utils/custom_dataset_sdxl.py); spaces go too.
_NOT_CHINESE = re.compile("[^\u4e00-\u9fa5,.!?:;，。！？：；“”0-9]")
_CHINESE = re.compile("[\u4e00-\u9fff]")


def is_unicode(text: str) -> bool:
    """Whether it has letters alone: JSON may hold half of a surrogate pair, and so a flag that is not UTF-8."""
    return text == text.encode(errors="ignore").decode()


def clean_plain(text: str) -> str:
    """HTML entities resolved, NFC, single spaces; no control characters and no invisible ones."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", html.unescape(text)))
    return " ".join("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text).split())


def clean_chinese(text: str) -> str:
    """As published: nothing but Chinese characters, digits and basic punctuation, in simplified script.

    A text without a Chinese character gives "", which counts as no caption.
    """
    kept = _NOT_CHINESE.sub("", clean_plain(text))
    return _simplify()(kept) if _CHINESE.search(kept) else ""


def keep(text: str) -> str:
    """The text as it is."""
    return text


CLEANINGS: dict[str, Callable[[str], str]] = {"none": keep, "plain": clean_plain, "chinese": clean_chinese}


def cleaning(name: str) -> Callable[[str], str]:
    """The function of that name.

    Raises:
      PeaError: there is none, or the package that it needs is not installed.
    """
    if name not in CLEANINGS:
        raise PeaError(f"config.data.cleaning={name!r}: not known; choose from {', '.join(CLEANINGS)}")
    if name == "chinese":
        _simplify()
    return CLEANINGS[name]


@functools.cache
def _simplify() -> Callable[[str], str]:
    try:
        import opencc
    except ImportError as error:
        raise PeaError(
            "config.data.cleaning='chinese' needs OpenCC: pip install 'pea_jax[chinese]', or take 'plain'"
        ) from error
    return opencc.OpenCC("t2s").convert
