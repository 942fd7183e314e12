"""Prompt sets to compare systems on, and their translations."""

import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.sampling import prompt_files
from pea_jax.weights.locations import PROJECT

NO_CATEGORY, ALL_CATEGORIES = "uncategorised", "all"


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What to draw; `english` says the same for an English model, None where nobody has said it."""

    prompt: str
    english: str | None
    category: str
    id: str


def read_prompts(path: str | pathlib.Path) -> list[Prompt]:
    """The prompts of a file (`sampling.prompt_files`), found as the user wrote it or within the project.

    The `id` is the prompt's number, from 1, where the file does not say it.

    Raises:
      PeaError: the file is missing, empty, or a line is not a prompt; two have one id; or one wants to be drawn in
        a way of its own, or calls its category as all of them are called.
    """
    path, prompts = _find(path), []
    for number, each in enumerate(prompt_files.read_prompts(path), 1):
        own = [name for name in ("negative_prompt", "seed", "size") if getattr(each, name) is not None]
        if own:
            raise PeaError(f"{path}: prompt {number} has {own[0]}; here all are drawn in one way, remove it")
        if each.category == ALL_CATEGORIES:
            raise PeaError(f"{path}: prompt {number} has the category {ALL_CATEGORIES!r}, which stands for every one")
        prompts.append(Prompt(each.prompt.strip(), each.english, each.category or NO_CATEGORY, each.id or str(number)))
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
    lines = prompt_files.lines_of(_text(path))
    if path.suffix.lower() != ".jsonl":
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
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PeaError(f"{path}: cannot be read ({error}); it must be text in UTF-8") from error
