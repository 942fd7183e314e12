"""Systems side by side: what each draws for the same concepts from the same noise, and whether it is found again."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.table import Table

from pea_jax.data import Concept, read_split
from pea_jax.distill.models import FrozenModels
from pea_jax.distill.training_set import caption_rules, data_of
from pea_jax.errors import PeaError
from pea_jax.metrics.intervals import Estimate, mean
from pea_jax.metrics.retrieval import Retrieval, hits_at, picture_distance
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import Conditioner

TEACHER = "English teacher"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """One system on one split; `distance` is to the teacher's pictures, None for the teacher itself."""

    system: str
    split: str
    concepts: int
    retrieval_at_1: Estimate
    retrieval_at_5: Estimate
    distance: Estimate | None


def read_concepts(config: ConfigDict) -> tuple[list[Concept], list[Concept]]:
    """The concepts of a config's training and validation shards, in the language and in English.

    Raises:
      PeaError: they cannot be read, none has a picture, a picture is not of `config.picture_size`, or two that differ
        have one key.
    """
    settings: dict[str, Any] = dict(
        languages=(config.language, "en"),
        cache_dir=config.data.cache_dir or None,
        caption=caption_rules(config).text,
        size=config.picture_size,
    )
    train, validation = data_of(config, "train"), data_of(config, "validation")
    found = read_split(train, **settings), read_split(validation, **settings)
    if not any(found):
        raise PeaError(f"{train} {validation}: no sample has a picture; retrieval looks for pictures, give --prompts")
    _check_keys(itertools.chain(*found))
    return found


def _check_keys(concepts: Iterable[Concept]) -> None:
    """By its key a picture is known to be the one that was named."""
    known: dict[str, np.ndarray] = {}
    for concept in concepts:
        if not np.array_equal(known.setdefault(concept.key, concept.pixels), concept.pixels):
            raise PeaError(
                f"config.data.train and config.data.validation: two pictures have the key {concept.key}, and retrieval "
                "would take one for the other; give each its own, or judge with --prompts"
            )


def retrieval_among(concepts: list[Concept]) -> Retrieval:
    """Looks for pictures among those of `concepts`."""
    return Retrieval(
        np.stack([concept.pixels for concept in concepts]),
        [concept.key for concept in concepts],
        [concept.family for concept in concepts],
    )


class Judge:
    """Draws the concepts of a config's two sets and looks for them among all pictures of both.

    `seen` are training concepts (the first `config.evaluation.seen` of the shards, 0 for all), `held out` all those of
    validation, of which no adapter has been shown a name in the language.
    """

    def __init__(
        self, config: ConfigDict, concepts: tuple[list[Concept], list[Concept]], models: FrozenModels, mesh: Mesh
    ):
        settings = dict(config.evaluation)
        count = settings.pop("seen")
        self._sampling, self._size, self._language = Sampling(**settings), config.picture_size, config.language
        self.pipeline = TextToImage(models.unet, models.vae, models.scheduler, mesh)
        self._english = models.teacher
        train, held_out = concepts
        self._retrieval = retrieval_among(train + held_out)
        splits = {"seen": train[:count] if count else train, "held out": held_out}
        self._splits = {split: concepts for split, concepts in splits.items() if concepts}

    def compare(self, systems: Mapping[str, Conditioner]) -> list[Judgement]:
        """The teacher with the English names, then every system with those of the language."""
        references = self._draw(self._english, "en")
        drawn = {name: self._draw(conditioner, self._language) for name, conditioner in systems.items()}
        results = []
        for split, concepts in self._splits.items():
            results.append(self._judge(TEACHER, split, concepts, references[split], None))
            for name, pictures in drawn.items():
                results.append(self._judge(name, split, concepts, pictures[split], references[split]))
        return results

    def _draw(self, conditioner: Conditioner, language: str) -> dict[str, np.ndarray]:
        """The pictures of each split, all drawn in one go; the noise counts from 0 in each."""
        names = [concept.names[language] for concepts in self._splits.values() for concept in concepts]
        prompts, negative = conditioner.encode_guided(names)
        counts = [len(concepts) for concepts in self._splits.values()]
        indices = [index for count in counts for index in range(count)]
        width, height = self._size
        pictures = self.pipeline.generate(
            prompts, negative, self._sampling, height=height, width=width, indices=indices
        )
        return dict(zip(self._splits, np.split(pictures, np.cumsum(counts)[:-1]), strict=True))

    def _judge(
        self, system: str, split: str, concepts: list[Concept], pictures: np.ndarray, reference: np.ndarray | None
    ) -> Judgement:
        ranks = self._retrieval.rank(pictures, [concept.key for concept in concepts])
        distance = None if reference is None else mean(picture_distance(pictures, reference), self._sampling.seed)
        return Judgement(system, split, len(concepts), hits_at(ranks, 1), hits_at(ranks, 5), distance)


def table(results: list[Judgement]) -> Table:
    """The results as a table for the screen; 95% intervals in brackets."""
    columns = ("concepts", "system", "R@1, %", "R@5, %", "distance to teacher")
    shown = Table(*columns, title="Is the nearest picture of the corpus the one that was named?")
    for result in results:
        hits = [_text(estimate, 100, 1) for estimate in (result.retrieval_at_1, result.retrieval_at_5)]
        distance = "" if result.distance is None else _text(result.distance, 1, 3)
        shown.add_row(f"{result.split} ({result.concepts})", result.system, *hits, distance)
    return shown


def report(results: list[Judgement], config: ConfigDict, folders: Mapping[str, str]) -> dict[str, Any]:
    """The results for a JSON file, with what they were made from."""
    return dict(
        results=[
            {name: value._asdict() if isinstance(value, Estimate) else value for name, value in vars(result).items()}
            for result in results
        ],
        adapters=dict(folders),
        base_model=config.base_model,
        language=config.language,
        evaluation=dict(config.evaluation),
    )


def _text(estimate: Estimate, factor: float, digits: int) -> str:
    value, low, high = (f"{factor * number:.{digits}f}" for number in estimate[:3])
    return f"{value} ({low} - {high})"
