"""What a training does to the rest of the base model: to English, and to a LoRA that was trained before."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from safetensors.numpy import load_file, save_file

from benchmarks.studies.judging import Judge, Result
from benchmarks.studies.records import Records
from benchmarks.studies.study import Variant
from pea_jax.text.conditioner import Conditioner

ENGLISH, WITH_LORA = "{}, in English", "{}, with the LoRA"
# A LoRA of the English model, trained on repainted pictures with the plain diffusion loss, as users train theirs.
WEIGHTS = {"noise": 1.0, "output": 0.0, "features": 0.0, "conditioning": 0.0, "hybrid": False}
STYLE = Variant(
    "LoRA", {f"loss.{name}": weight for name, weight in WEIGHTS.items()}, Records(repainted=True), trains="style"
)


def effects(judge: Judge, styled: Judge, conditioner: Conditioner, tuned: Mapping[str, Any], names: str) -> Result:
    """Of one system, asked for the set `names`; `styled` draws with the LoRA."""
    english = judge.judge(judge.frozen.teacher, tuned, "en")
    return {ENGLISH.format(names): english[names], WITH_LORA.format(names): styled.judge(conditioner, tuned)[names]}


def teacher_effects(styled: Judge, names: str) -> Result:
    """Of the teacher itself, in English: what the LoRA does where nothing else was trained."""
    return {WITH_LORA.format(names): styled.teacher()[names]}


def save(path: pathlib.Path, style: Mapping[str, Any]) -> None:
    """Keep a LoRA, so that it is trained once for all runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({f"{name}:{which}": matrix for name, pair in style.items() for which, matrix in pair.items()}, partial)
    partial.replace(path)


def load(path: pathlib.Path) -> dict[str, Any]:
    """What `save` kept."""
    style: dict[str, Any] = {}
    for name, matrix in load_file(path).items():
        module, _, which = name.rpartition(":")
        style.setdefault(module, {})[which] = jax.numpy.asarray(matrix)
    return style
