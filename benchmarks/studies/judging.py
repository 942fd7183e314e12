"""What one system draws when asked for the names of a study, from the same noise as every other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks.studies import parts
from benchmarks.studies.records import repaint
from benchmarks.studies.study import Names
from pea_jax.data import Concept, read_split
from pea_jax.distill.models import FrozenModels
from pea_jax.metrics.retrieval import Retrieval, picture_distance
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import Conditioner

Result = dict[str, dict[str, list]]


class Judge:
    """Judges systems by ranks and by distances to the English teacher's pictures, name by name.

    With a `style`, a LoRA that repaints (`records.repaint`), everything is drawn with it, and looked for among
    repainted pictures.

    Args:
      config: whose evaluation settings and language.
      names: what to ask for, by set.
      corpus: shards of the pictures among which the drawn ones are looked for.
      frozen: with the teacher, whose pictures are drawn at once.
      mesh: of the models.
      style: differences of the UNet's parameters, as `parts.merged` takes them.
    """

    def __init__(
        self,
        config: ConfigDict,
        names: Mapping[str, Names],
        corpus: str,
        frozen: FrozenModels,
        mesh: Mesh,
        style: Mapping[str, Any] | None = None,
    ):
        self._sampling = Sampling(**drawing(config), batch_size=config.evaluation.batch_size)
        self._size, self._language = config.picture_size, config.language
        self.frozen, self.mesh, self._style = frozen, mesh, style or {}
        self._retrieval = _retrieval(read_split(corpus, ("en",)), repainted=bool(style))
        self._sets = {label: _read(each, config.language) for label, each in names.items()}
        self._pipeline = self._pipeline_of({})
        self._references = self._draw(self._pipeline, frozen.teacher, "en")

    def teacher(self) -> Result:
        """Of the teacher itself, asked in English."""
        return self._result(self._references, self._references)

    def judge(self, conditioner: Conditioner, tuned: Mapping[str, Any], language: str = "") -> Result:
        """Of a system asked in the language, or in another one; `tuned` goes into the UNet (`parts.merged`)."""
        pipeline = self._pipeline_of(tuned) if tuned else self._pipeline
        return self._result(self._draw(pipeline, conditioner, language or self._language), self._references)

    def _pipeline_of(self, tuned: Mapping[str, Any]) -> TextToImage:
        graphdef, params = nnx.split(self.frozen.unet)
        unet = nnx.merge(graphdef, parts.merged(parts.merged(params, tuned), self._style))
        return TextToImage(unet, self.frozen.vae, self.frozen.scheduler, self.mesh)

    def _draw(self, pipeline: TextToImage, conditioner: Conditioner, language: str) -> list[np.ndarray]:
        """The pictures of each set, drawn in one go; the noise counts from 0 in each."""
        texts = [concept.names[language] for concepts in self._sets.values() for concept in concepts]
        counts = [len(concepts) for concepts in self._sets.values()]
        width, height = self._size
        pictures = pipeline.generate(
            *conditioner.encode_guided(texts),
            self._sampling,
            height=height,
            width=width,
            indices=[index for count in counts for index in range(count)],
        )
        return np.split(pictures, np.cumsum(counts)[:-1])

    def _result(self, drawn: list[np.ndarray], references: list[np.ndarray]) -> Result:
        result: dict[str, dict[str, Any]] = {}
        for (label, concepts), pictures, reference in zip(self._sets.items(), drawn, references, strict=True):
            ranks = self._retrieval.rank(pictures, [concept.key for concept in concepts])
            distances = picture_distance(pictures, reference)
            result[label] = dict(ranks=ranks.tolist(), distances=[round(float(each), 4) for each in distances])
        return result


def drawing(config: ConfigDict) -> dict[str, Any]:
    """The settings that decide what is drawn."""
    return {name: config.evaluation[name] for name in ("steps", "guidance_scale", "seed")}


def _retrieval(concepts: list[Concept], *, repainted: bool) -> Retrieval:
    pixels = np.stack([concept.pixels for concept in concepts])
    keys, families = zip(*((concept.key, concept.family) for concept in concepts), strict=True)
    return Retrieval(repaint(pixels) if repainted else pixels, keys, families)


def _read(names: Names, language: str) -> list[Concept]:
    concepts = read_split(names.shards, (language, "en"))
    return [concepts[number] for number in names.choose([concept.key for concept in concepts])]
