"""Labelled grids of pictures."""

import functools
import itertools
import pathlib
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, features

from pea_jax.whole_files import whole

MARGIN, SIZE = 8, 14
LONGEST = 60  # characters of a line of a label

Fonts = Mapping[str, ImageFont.FreeTypeFont]  # of each line


def save_grid(
    path: str | pathlib.Path,
    rows: Sequence[Sequence[np.ndarray]],
    *,
    column_titles: Sequence[str],
    row_labels: Sequence[str],
    scale: int = 1,
) -> np.ndarray:
    """Write a PNG: a row of uint8 `[H, W, 3]` pictures a label, a title above each column; returns its pixels.

    Labels may have several lines, each in any script that a font of the system has; Latin, Greek and Cyrillic are
    always there. Long lines are broken. The file is complete or not there at all.

    Raises:
      OSError: the file cannot be written.
    """
    row_labels = [*map(_broken, row_labels)]
    fonts = _fonts(line for label in (*column_titles, *row_labels) for line in label.split("\n"))
    height, width = (side * scale for side in rows[0][0].shape[:2])
    label_widths, label_heights = zip(*(_size(label, fonts) for label in row_labels), strict=True)
    row_heights = [max(height, label_height) for label_height in label_heights]
    title_width, title_height = np.max([(width, SIZE), *(_size(title, fonts) for title in column_titles)], axis=0)
    left, top, column_width = max(label_widths) + 2 * MARGIN, title_height + 2 * MARGIN, title_width + MARGIN
    size = left + column_width * len(column_titles), top + sum(row_heights) + MARGIN * len(rows)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(column_titles):
        _draw(draw, left + column * column_width, MARGIN, title, fonts)
    y = top
    for label, label_height, row_height, pictures in zip(row_labels, label_heights, row_heights, rows, strict=True):
        _draw(draw, MARGIN, y + (row_height - label_height) // 2, label, fonts)
        for column, picture in enumerate(pictures):
            image = Image.fromarray(np.asarray(picture)).resize((width, height), Image.Resampling.LANCZOS)
            canvas.paste(image, (left + column * column_width, y))
        y += row_height + MARGIN
    with whole(pathlib.Path(path)) as partial:
        canvas.save(partial, format="PNG")
    return np.asarray(canvas)


def _broken(label: str) -> str:
    """With lines of at most `LONGEST` characters, as a caption would be wider than all pictures."""
    return "\n".join(wrapped(line, LONGEST) for line in label.splitlines())


def wrapped(text: str, width: int, **options: Any) -> str:
    """As `textwrap.fill`, with its options; a word of Thai or Khmer, which write no spaces, is not broken before a mark
    that belongs to a letter."""
    lines = textwrap.wrap(text, width, **options)
    for number in range(1, len(lines)):
        marks = len(list(itertools.takewhile(_is_mark, lines[number])))
        lines[number - 1] += lines[number][:marks]
        lines[number] = lines[number][marks:]
    return "\n".join(lines)


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter).startswith("M")


def _size(text: str, fonts: Fonts) -> tuple[int, int]:
    """Width and height in pixels."""
    lines = text.split("\n")
    return int(np.ceil(max(fonts[line].getbbox(line)[2] for line in lines))), len(lines) * sum(_metrics(fonts))


def _draw(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, fonts: Fonts) -> None:
    """From the upper left corner; all lines are as far apart as the largest font asks for."""
    ascent, descent = _metrics(fonts)
    for number, line in enumerate(text.split("\n")):
        where = x, y + ascent + number * (ascent + descent)
        draw.text(where, line, fill="black", font=fonts[line], anchor="ls")


def _metrics(fonts: Fonts) -> tuple[int, int]:
    """Pixels above and below the line that letters stand on."""
    above, below = zip(*(font.getmetrics() for font in fonts.values()), strict=True)
    return max(above), max(below)


def _fonts(lines: Iterable[str]) -> dict[str, ImageFont.FreeTypeFont]:
    """For each line the first font that has every letter, or else the one that has most of them.

    Fonts of one script often lack Latin letters, so that no single one has a caption and its English.
    """
    found = {line: _best_font(line) for line in lines}
    if not features.check("raqm") and any(map(_is_shaped, "".join(found))):
        logging.warning(
            "labels may have letters in a wrong order or form; install FriBidi, which Pillow takes for that"
        )
    if missing := frozenset[int]().union(*(missing for _, missing in found.values())):
        sample = "".join(map(chr, sorted(missing)[:5]))
        logging.warning("no font has the letters %s; to see them install one, e.g. of the Noto fonts", sample)
    opened = {path: ImageFont.truetype(path, SIZE) for path in {path for path, _ in found.values()}}
    return {line: opened[path] for line, (path, _) in found.items()}


def _is_shaped(letter: str) -> bool:
    """Whether its script is written from the right, or has letters that change their place or form."""
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) == "Mc"


def _best_font(line: str) -> tuple[str, frozenset[int]]:
    """Its file, and the letters that it lacks; what is invisible needs none."""
    letters = frozenset(ord(letter) for letter in line if letter.isprintable()) - frozenset(map(ord, " \ufe0e\ufe0f"))
    best, missing = "", letters
    for path in _font_files():
        absent = letters - _letters(path)
        if not best or len(absent) < len(missing):
            best, missing = path, absent
        if not missing:
            break
    return best, missing


def _font_files() -> Iterator[str]:
    """DejaVu Sans, which comes with matplotlib, then the upright regular fonts of the system."""
    yield font_manager.findfont("DejaVu Sans")
    for font in font_manager.fontManager.ttflist:
        # The "last resort" font has a box for every letter there is.
        if font.style == "normal" and font.weight == 400 and not font.name.startswith("Last Resort"):
            yield font.fname


@functools.cache
def _letters(path: str) -> frozenset[int]:
    """Empty where the file cannot be read: matplotlib's list is kept, and may be of another machine."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
