"""What was compiled for a plan, kept line by line in a file, so that a plan that was stopped goes on where it was."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from pea_jax.data.buckets import Size
from pea_jax.distill.footprint import Footprint, TooLarge
from pea_jax.distill.planning import Measure, Slice


class Remembered:
    """Wraps what measures the programs of a slice; what is in `path` is not measured again for the same config, and the
    same `kernels` as for `make_plans`."""

    def __init__(self, path: pathlib.Path, config: ConfigDict, *, kernels: bool = False):
        self._path = path
        fields = [field.name for field in dataclasses.fields(Footprint)]  # lines of an older version may have others
        made_with = f"{config.to_json(sort_keys=True)} {jax.__version__} {fields}{' kernels' * kernels}"
        self._made_with = hashlib.sha256(made_with.encode()).hexdigest()
        lines = path.read_text().splitlines() if path.exists() else []
        self._found = {json.dumps(entry["program"]): entry for line in lines for entry in _whole(line)}

    def __call__(self, measure: Measure, one: Slice) -> Measure:
        def remember(bucket: Size, batch: int) -> Footprint:
            program = [self._made_with, *one.program, *bucket, batch]
            entry = self._found.get(json.dumps(program)) or self._measure(measure, program, bucket, batch)
            if "too_large" in entry:
                raise TooLarge(entry["too_large"])
            return Footprint(**entry["step"])

        return remember

    def _measure(self, measure: Measure, program: list, bucket: Size, batch: int) -> dict[str, Any]:
        entry: dict[str, Any] = dict(program=program)
        try:
            entry["step"] = dataclasses.asdict(measure(bucket, batch))
        except TooLarge as error:
            entry["too_large"] = error.memory
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            print(json.dumps(entry), file=file, flush=True)
        self._found[json.dumps(program)] = entry
        return entry


def _whole(line: str) -> list[dict[str, Any]]:
    """The entry of a line; none where a plan was ended, or the disk was full, in the middle of it."""
    try:
        return [json.loads(line)]
    except ValueError:
        return []
