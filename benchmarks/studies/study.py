"""What a study is: variants of one training, and the names that each is asked for afterwards."""

import dataclasses
import hashlib
import importlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from benchmarks.studies.records import Records
from pea_jax import config as configs

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "studies"
SEEDS = (0, 1, 2)
TRAIN, HELD_OUT = "assets/emoji/emoji-train-{00000..00001}.tar", "assets/emoji/emoji-val-00000.tar"
# Shorter than the demo's training; the pictures of a run are not looked at, a checkpoint is what a kill may cost.
SCHEDULE = {
    "num_steps": 400,
    "checkpoint.every": 100,
    "checkpoint.keep": 1,
    "sample.every": 400,
    "sample.count": 2,
    "sample.steps": 2,
    "evaluation.steps": 8,
}


@dataclasses.dataclass(frozen=True)
class Names:
    """Some concepts of `shards`: those of `keys`, or else the first `count` (0: all) by a hash of the key, but not
    those of `without`."""

    shards: str
    count: int = 0
    keys: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def choose(self, keys: list[str]) -> list[int]:
        """The numbers of the chosen ones, in the order of `keys`."""
        if self.keys:
            return [number for number, key in enumerate(keys) if key in self.keys]
        allowed = [number for number, key in enumerate(keys) if key not in self.without]
        order = sorted(allowed, key=lambda number: hashlib.sha256(keys[number].encode()).digest())
        return sorted(order[: self.count or None])


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a study.

    `fields` of the config and `records` of the training data are changed; `trains` says what is trained: the adapter,
    or a part of the UNet behind it (`benchmarks.studies.tuning`).
    """

    label: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    records: Records = Records()
    language: str = "ru"
    trains: str = "adapter"


@dataclasses.dataclass(frozen=True)
class Study:
    """Variants side by side; each is asked for the concepts of `names`, which are looked for in `corpus`.

    With `effects` they are also judged on what is done to English and to a LoRA that was trained before, by the first
    of `names` (`benchmarks.studies.effects`).
    """

    title: str
    variants: tuple[Variant, ...]
    names: Mapping[str, Names] = dataclasses.field(
        default_factory=lambda: {"seen": Names(TRAIN, count=150), "held out": Names(HELD_OUT)}
    )
    corpus: str = f"{TRAIN} {HELD_OUT}"
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=lambda: SCHEDULE)
    effects: bool = False

    def config(self, variant: Variant, seed: int) -> ConfigDict:
        """Of one run; of the data only what is in the project, and of held-out concepts nothing in any language."""
        config = configs.emoji(variant.language)
        config.seed = seed
        config.data.english, config.loss.contrast = "", 0.0
        config.update_from_flattened_dict({**self.schedule, **variant.fields})
        return config

    def key(self, variant: Variant, seed: int) -> str:
        """The same for runs that do not differ, of whatever study they are; a new default elsewhere changes it not."""
        default, fields = Records(), {**self.schedule, **variant.fields}
        records = {name: value for name, value in vars(variant.records).items() if value != getattr(default, name)}
        return digest(variant.language, seed, fields, records, variant.trains, self.asked())

    def asked(self) -> Any:
        """What the judgement depends on."""
        names = {label: dataclasses.asdict(names) for label, names in self.names.items()}
        return [names, self.corpus, "effects"] if self.effects else [names, self.corpus]


def digest(*parts: Any) -> str:
    """A short hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def study_names() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.py"))


def load(name: str) -> Study:
    """The study of `configs/studies/NAME.py`."""
    return importlib.import_module(f"configs.studies.{name}").STUDY
