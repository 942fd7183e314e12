"""Labelled grids of pictures."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

MARGIN, SIZE = 8, 14
# Families with Chinese, Japanese and Korean letters, where the system has one; DejaVu comes with matplotlib.
WIDE_FONTS = ["Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans", "WenQuanYi Zen Hei", "Arial Unicode MS"]


def save_grid(
    path: str | pathlib.Path,
    rows: Sequence[Sequence[np.ndarray]],
    *,
    column_titles: Sequence[str],
    row_labels: Sequence[str],
    scale: int = 1,
) -> np.ndarray:
    """Write a PNG: a row of uint8 `[H, W, 3]` pictures a label, a title above each column; returns its pixels."""
    font = _font("".join(row_labels))
    height, width = (side * scale for side in rows[0][0].shape[:2])
    sizes = [
        ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
        for text in (*row_labels, "X")
    ]
    label_width = int(max(box[2] for box in sizes)) + 2 * MARGIN
    column = max(width, *(int(font.getlength(title)) for title in column_titles)) + MARGIN
    top = SIZE + 2 * MARGIN
    canvas = Image.new("RGB", (label_width + column * len(column_titles), top + (height + MARGIN) * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, title in enumerate(column_titles):
        draw.text((label_width + number * column, MARGIN), title, fill="black", font=font)
    for row, (label, pictures) in enumerate(zip(row_labels, rows, strict=True)):
        y = top + row * (height + MARGIN)
        draw.multiline_text((MARGIN, y + height // 2), label, fill="black", font=font, anchor="lm")
        for number, picture in enumerate(pictures):
            image = Image.fromarray(np.asarray(picture)).resize((width, height), Image.Resampling.LANCZOS)
            canvas.paste(image, (label_width + number * column, y))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    canvas.save(partial, format="PNG")
    os.replace(partial, path)
    return np.asarray(canvas)


def _font(text: str) -> ImageFont.FreeTypeFont:
    narrow = all(ord(letter) < 0x3000 for letter in text)
    families = ["DejaVu Sans"] if narrow else [*WIDE_FONTS, "DejaVu Sans"]
    properties = font_manager.FontProperties(family=families)
    return ImageFont.truetype(font_manager.findfont(properties), SIZE)
