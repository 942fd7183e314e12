"""Prompt sets in files: one prompt a line, or JSONL with `prompt` and, if there are, `english`, `category`, `id`."""

import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.weights.locations import PROJECT

FIELDS = ("prompt", "english", "category", "id")
NO_CATEGORY = "uncategorised"


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What to draw; `english` says the same for an English model, None where nobody has said it."""

    prompt: str
    english: str | None
    category: str
    id: str


def read_prompts(path: str | pathlib.Path) -> list[Prompt]:
    """The prompts of a file, found as the user wrote it or within the project; empty lines are passed over.

    Of a text file the `id` is the number of the line, from 1; of JSONL as well where it does not say it.

    Raises:
      PeaError: the file is missing, empty, or a line is not a prompt; or two have one id.
    """
    path = _find(path)
    rows = [(number, line) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
    parse = _from_json if path.suffix == ".jsonl" else _from_line
    prompts = [parse(f"{path}:{number}", number, line) for number, line in rows]
    if not prompts:
        raise PeaError(f"{path}: no prompt in it")
    id, count = Counter(prompt.id for prompt in prompts).most_common(1)[0]
    if count > 1:
        raise PeaError(f"{path}: {count} prompts have the id {id!r}; each needs its own")
    return prompts


def read_translations(path: str | pathlib.Path, prompts: Sequence[Prompt]) -> list[str]:
    """The English of each prompt: from JSONL with `id` and `english`, or from as many lines as there are prompts.

    Raises:
      PeaError: the file is missing or broken, or does not have every prompt.
    """
    path = _find(path)
    lines = _text(path).splitlines()
    if path.suffix != ".jsonl":
        if len(lines) != len(prompts):
            raise PeaError(f"{path}: {len(lines)} lines for {len(prompts)} prompts; each prompt needs its own line")
        return lines
    rows = {number: _object(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()}
    translated = {}
    for number, row in rows.items():
        if not isinstance(row.get("english"), str) or "id" not in row:
            raise PeaError(f"{path}:{number}: needs an id and a text `english`")
        translated[str(row["id"])] = row["english"]
    if missing := [prompt.id for prompt in prompts if prompt.id not in translated]:
        raise PeaError(f"{path}: {len(missing)} prompts are not in it (the first has the id {missing[0]!r})")
    return [translated[prompt.id] for prompt in prompts]


def _from_line(place: str, number: int, line: str) -> Prompt:
    return Prompt(line.strip(), None, NO_CATEGORY, str(number))


def _from_json(place: str, number: int, line: str) -> Prompt:
    row = _object(place, line)
    if unknown := sorted(row.keys() - set(FIELDS)):
        raise PeaError(f"{place}: field {unknown[0]!r} is not known (known: {', '.join(FIELDS)})")
    prompt, english = row.get("prompt"), row.get("english")
    if not isinstance(prompt, str) or not prompt.strip():
        raise PeaError(f"{place}: needs a text `prompt`")
    if english is not None and (not isinstance(english, str) or not english.strip()):
        raise PeaError(f"{place}: english={english!r} must be a text, or not be there")
    return Prompt(prompt.strip(), english, str(row.get("category") or NO_CATEGORY), str(row.get("id") or number))


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise PeaError(f"{place}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise PeaError(f"{place}: must be a JSON object")
    return row


def _find(path: str | pathlib.Path) -> pathlib.Path:
    for place in (pathlib.Path(path).expanduser(), PROJECT / path):
        if place.is_file():
            return place
    raise PeaError(f"{path}: no such file (the project's own sets are assets/prompts/*.jsonl)")


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PeaError(f"{path}: cannot be read ({error}); it must be text in UTF-8") from error
