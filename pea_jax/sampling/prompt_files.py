"""Files of prompts: one a line, or one JSON object a line."""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from pea_jax.data.text_cleaning import is_unicode
from pea_jax.errors import PeaError
from pea_jax.sampling.noise import MOST_SEEDS


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What is drawn, and what of it does not go for all; `size` is (width, height), `english` the same in English, for
    comparisons; `others` is only handed on."""

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    size: tuple[int, int] | None = None
    category: str | None = None
    id: str | None = None
    english: str | None = None
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)


FIELDS = tuple(field.name for field in dataclasses.fields(Prompt) if field.name != "others")
TEXTS = ("negative_prompt", "category", "id", "english")


def read_prompts(path: str | pathlib.Path) -> list[Prompt]:
    """The prompts of a file, empty lines left out.

    Args:
      path: a text file with one prompt a line; or, named `.jsonl`, one with objects: `prompt`, and if need be
        `negative_prompt`, `seed`, `size` ([width, height]), `category`, `id`, `english`, and what is only handed on.

    Raises:
      PeaError: the file cannot be read or has no prompts, or an object is not like that, with the number of its line.
    """
    path = pathlib.Path(path)
    try:
        lines = lines_of(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PeaError(f"{path}: cannot be read ({reason}); name a file of prompts") from error
    read = _from_object if path.suffix.lower() == ".jsonl" else lambda line, where: Prompt(line)
    prompts = [read(line.strip(), f"{path}:{i}") for i, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise PeaError(f"{path}: has no prompts; write one a line")
    return prompts


def lines_of(text: str) -> list[str]:
    """Its lines, which end at line feeds alone: to `str.splitlines` U+2028 and the like, which JSON has within texts,
    are ends as well."""
    return text.removesuffix("\n").split("\n") if text else []


def _from_object(line: str, where: str) -> Prompt:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise PeaError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("prompt"), str) or not fields["prompt"].strip():
        raise PeaError(f'{where}: must be an object with a prompt, as {{"prompt": "..."}}')
    _check(fields, where)
    known = {name: fields[name] for name in FIELDS if fields.get(name) is not None}
    known |= {name: tuple(known[name]) for name in ("size",) if name in known}
    return Prompt(**known, others={name: value for name, value in fields.items() if name not in FIELDS})


def _check(fields: dict[str, Any], where: str) -> None:
    for name, value in fields.items():
        if name not in FIELDS and (near := difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.8)):
            raise PeaError(f"{where}: has a field {name!r}; {near[0]!r} is meant?")
        if name in TEXTS and not isinstance(value, str | None):
            raise PeaError(f"{where}: {name}={value!r} must be a string")
        if isinstance(value, str) and not is_unicode(value):
            raise PeaError(f"{where}: {name} holds half of a surrogate pair, which is no letter; remove it")
    seed, size = fields.get("seed"), fields.get("size")
    if seed is not None and (type(seed) is not int or not 0 <= seed < MOST_SEEDS):
        raise PeaError(f"{where}: seed={seed!r} must be a whole number from 0 to {MOST_SEEDS - 1}")
    if size is not None and (not isinstance(size, list) or list(map(type, size)) != [int, int] or min(size) < 1):
        raise PeaError(f"{where}: size={size!r} must be [width, height] in pixels")
