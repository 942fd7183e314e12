"""The finished runs of all studies: what is in it is never done again."""

import datetime
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import record
from benchmarks.studies.study import Study, Variant


class Ledger:
    """The finished runs of all studies, one line each in FOLDER/STUDY.jsonl."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Of one study; a line that a full disk cut off is left out."""
        path = self._folder / f"{name}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def find(self, key: str) -> dict[str, Any] | None:
        """The run of a key, of whatever study it was."""
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in self.lines(path.stem):
                if line["key"] == key:
                    return line
        return None

    def add(self, name: str, line: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.jsonl"
        kept = self.lines(name)
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in [*kept, line]))
        partial.replace(path)


def pending(name: str, study: Study, seeds: tuple[int, ...], ledger: Ledger) -> Iterator[tuple[Variant, int]]:
    """The runs of a study that its own file does not have."""
    done = {each["key"] for each in ledger.lines(name)}
    for seed in seeds:
        yield from ((variant, seed) for variant in study.variants if study.key(variant, seed) not in done)


def line(label: str, seed: int, key: str, result: Any) -> dict[str, Any]:
    """What every line has."""
    found = record.surroundings()
    machine = dict(processor=found["processor"], device=jax.devices()[0].device_kind, jax=found["versions"]["jax"])
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return dict(variant=label, seed=seed, key=key, date=date, **machine, results=result)
