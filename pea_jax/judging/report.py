"""What a judging leaves behind: `report.json` for programs, `.md` and `.html` for people, with pictures in both."""

import base64
import html
import io
import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from pea_jax.judging.comparison import Result
from pea_jax.judging.distances import Distance
from pea_jax.judging.prompts import Prompt
from pea_jax.judging.tables import Table, markdown_row
from pea_jax.metrics.intervals import Estimate

SIDE = 256  # of a picture in the report, at most
# What a report may have to say of its tables and pictures.
MEANS = "Means over prompts with 95% intervals in brackets (bootstrap over prompts; differences pair the same prompts)."
SAME_NOISE = "All systems drew each prompt from the same noise."
STYLE = """
body { font-family: sans-serif; margin: 2em; max-width: 80em }
table { border-collapse: collapse; margin-bottom: 2em }
th, td { border: 1px solid #ccc; padding: .3em .6em; text-align: start; vertical-align: top }
img { max-width: 256px; image-rendering: auto }
div { min-width: 15em; overflow-wrap: anywhere }
"""


class PictureRow(NamedTuple):
    """A prompt, and what each system drew for it; None: nothing."""

    prompt: Prompt
    paths: Mapping[str, pathlib.Path | None]


def as_json(results: Sequence[Result], distances: Sequence[Distance], made_from: Mapping[str, Any]) -> dict[str, Any]:
    """For a JSON file; `made_from` says with what."""

    def plain(value: Any) -> Any:
        return value._asdict() if isinstance(value, Estimate) else value

    return dict(
        results=[{name: plain(value) for name, value in vars(result).items()} for result in results],
        distances=[dict(vars(distance)) for distance in distances],
        **made_from,
    )


def choose_rows(rows: Sequence[PictureRow], count: int) -> list[PictureRow]:
    """At most `count`, evenly spread over the file, so that every category is in it."""
    if len(rows) <= count:
        return list(rows)
    return [rows[i * len(rows) // count] for i in range(count)]


def as_markdown(
    title: str, tables: Sequence[Table], rows: Sequence[PictureRow], beside: pathlib.Path, notes: Sequence[str] = ()
) -> str:
    """Pictures are links, relative to the folder `beside`, where the file will lie."""
    parts = [f"# {title}", "", " ".join(notes), "", *(table.to_markdown() for table in tables)]
    if rows:
        head = ["prompt", *rows[0].paths]
        parts += [markdown_row(head), markdown_row(["---"] * len(head))]
    for prompt, paths in rows:
        cells = ["" if path is None else f"![]({_link(path, beside)})" for path in paths.values()]
        parts.append(markdown_row(["<br>".join(_captions(prompt)), *cells]))
    return "\n".join(parts) + "\n"


def as_html(title: str, tables: Sequence[Table], rows: Sequence[PictureRow], notes: Sequence[str] = ()) -> str:
    """One file with everything in it."""
    said = html.escape(" ".join(notes))
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1><p>{said}</p>",
        *(table.to_html() for table in tables),
    ]
    if rows:
        head = "".join(f"<th>{html.escape(system)}</th>" for system in rows[0].paths)
        parts.append(f"<h2>Pictures</h2>\n<table>\n<tr><th>prompt</th>{head}</tr>")
        for prompt, paths in rows:
            cells = "".join(f"<td>{'' if path is None else _embedded(path)}</td>" for path in paths.values())
            # Each by itself from right to left if it is Arabic or Hebrew.
            captions = "".join(f'<div dir="auto">{caption}</div>' for caption in _captions(prompt))
            parts.append(f"<tr><td>{captions}</td>{cells}</tr>")
        parts.append("</table>")
    return "\n".join([*parts, "</body></html>\n"])


def _captions(prompt: Prompt) -> list[str]:
    """Each in one line, as a row of Markdown must be."""
    texts = (prompt.prompt, prompt.english, prompt.category)
    return [html.escape(" ".join(text.split())) for text in texts if text]


def _link(path: pathlib.Path, beside: pathlib.Path) -> str:
    """With what is written otherwise in addresses, `#` and `)` among it."""
    return urllib.parse.quote(pathlib.Path(os.path.relpath(path, beside)).as_posix())


def _embedded(path: pathlib.Path) -> str:
    with Image.open(path) as picture:
        small, file = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(file, "JPEG", quality=88)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}" alt="">'
