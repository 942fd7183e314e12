"""One run of a study, trained and judged."""

import json
import pathlib
import shutil
import time
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from benchmarks.studies import effects, records
from benchmarks.studies.judging import Judge, drawing
from benchmarks.studies.ledger import Ledger, line, pending
from benchmarks.studies.study import Study, Variant, digest
from benchmarks.studies.tuning import Tuned, tune
from pea_jax import mesh as meshes
from pea_jax import train
from pea_jax.adapter import PEAdapter
from pea_jax.distill import models
from pea_jax.preemption import Preemption
from pea_jax.report import console
from pea_jax.text.conditioner import AdapterConditioner

TEACHER = "English teacher"


class Runner:
    """Does the runs of studies in one process, so that what is compiled for one serves the next.

    Args:
      workdir: where runs, caches of text states and changed shards go; all of it may be removed when nothing runs.
      ledger: what is finished.
    """

    def __init__(self, workdir: pathlib.Path, ledger: Ledger):
        self._workdir, self._ledger = workdir, ledger
        self._judges: dict[str, Judge] = {}

    def run(self, name: str, study: Study, seeds: tuple[int, ...]) -> None:
        """All variants with the first seed, then with the next: what is stopped early has whole comparisons."""
        for variant, seed in pending(name, study, seeds, self._ledger):
            console.print(f"{name}: {variant.label}, seed {seed}")
            self._note_teacher(name, study, variant)
            key = study.key(variant, seed)
            found = self._ledger.find(key) or self._one(study, variant, seed)
            self._ledger.add(name, {**found, "variant": variant.label})

    def _one(self, study: Study, variant: Variant, seed: int) -> dict[str, Any]:
        config, key, start = study.config(variant, seed), study.key(variant, seed), time.monotonic()
        judge = self._judge(study, config)
        trained = self._trained(study, variant, seed, judge)
        end = time.monotonic()
        conditioner = AdapterConditioner(judge.frozen.student, trained.join)
        result = judge.judge(conditioner, trained.unet)
        if study.effects:
            result |= effects.effects(judge, self._styled(study), conditioner, trained.unet, next(iter(study.names)))
        self._forget(key)
        seconds = dict(train=round(end - start, 1), judge=round(time.monotonic() - end, 1))
        count = parameters(nnx.state(trained.join)) + parameters(trained.unet)
        return dict(line(variant.label, seed, key, result), parameters=count, seconds=seconds)

    def _trained(self, study: Study, variant: Variant, seed: int, judge: Judge) -> Tuned:
        config, workdir = study.config(variant, seed), self._folder(study.key(variant, seed))
        self._prepare_data(config, variant, seed)
        with Preemption(str(workdir)) as preemption:
            if variant.trains != "adapter":
                return tune(config, variant.trains, judge.frozen, judge.mesh, workdir, preemption)
            train.train(config, workdir, preemption)
        return Tuned(PEAdapter.from_pretrained(workdir / "adapter"), {})

    def _folder(self, key: str) -> pathlib.Path:
        return self._workdir / "runs" / key

    def _forget(self, key: str) -> None:
        """The files of a run that is done, and its programs."""
        shutil.rmtree(self._folder(key))
        jax.clear_caches()

    def _styled(self, study: Study) -> Judge:
        """A judge that draws with a LoRA, which is trained if it is not there yet."""
        config, key = study.config(effects.STYLE, 0), study.key(effects.STYLE, 0)
        path = self._workdir / "loras" / f"{key}.safetensors"
        if not path.exists():
            console.print("a LoRA of the English model")
            effects.save(path, self._trained(study, effects.STYLE, 0, self._judge(study, config)).unet)
            self._forget(key)
        if key not in self._judges:
            judge, first = self._judge(study, config), dict(list(study.names.items())[:1])
            self._judges[key] = Judge(config, first, study.corpus, judge.frozen, judge.mesh, effects.load(path))
        return self._judges[key]

    def _note_teacher(self, name: str, study: Study, variant: Variant) -> None:
        """One line for each teacher among those of a study."""
        config = study.config(variant, 0)
        key = digest("teacher", config.base_model, drawing(config), study.asked())
        if not any(each["key"] == key for each in self._ledger.lines(name)):
            label = f"{TEACHER}, {variant.label}" if "base_model" in variant.fields else TEACHER
            found = self._ledger.find(key) or self._teacher(key, study, config)
            self._ledger.add(name, {**found, "variant": label})

    def _teacher(self, key: str, study: Study, config: ConfigDict) -> dict[str, Any]:
        judge = self._judge(study, config)
        result = judge.teacher()
        if study.effects:
            result |= effects.teacher_effects(self._styled(study), next(iter(study.names)))
        return dict(line(TEACHER, 0, key, result), parameters=parameters(nnx.state(judge.frozen.unet)))

    def _judge(self, study: Study, config: ConfigDict) -> Judge:
        """The last one is kept: the runs of a study mostly share it."""
        key = digest(config.base_model, config.language, drawing(config), study.asked())
        if key not in self._judges:
            self._judges.clear()
            mesh = meshes.make_mesh(**config.mesh)
            frozen = models.load_models(config, mesh)
            self._judges[key] = Judge(config, study.names, study.corpus, frozen, mesh)
        return self._judges[key]

    def _prepare_data(self, config: ConfigDict, variant: Variant, seed: int) -> None:
        """Point the config to changed records, if they are, and to a cache that runs of the same data share."""
        if variant.records != records.Records():
            made_of = digest(config.data.train, variant.language, vars(variant.records), seed)
            path = self._workdir / "data" / f"{made_of}{'.jsonl' if variant.records.text_alone else '.tar'}"
            if not path.exists():
                records.write(path, config.data.train, variant.language, variant.records, seed)
            config.data.train = str(path)
        data = json.loads(config.data.to_json())
        encoders = json.loads(config.text_encoder.to_json())
        shared = digest(data, config.language, config.base_model, encoders, config.dtype, seed)
        config.data.cache_dir = str(self._workdir / "cache" / shared)


def parameters(tree: Any) -> int:
    """How many numbers a tree of arrays holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
