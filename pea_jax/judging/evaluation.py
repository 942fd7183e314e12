"""A judging from prompts to results: pictures drawn, scored and compared."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax import mesh as meshes
from pea_jax import processes
from pea_jax.distill.models import load_models
from pea_jax.errors import PeaError
from pea_jax.judging.clip import CLIP
from pea_jax.judging.comparison import Metric, Result, clip_score, compare, pick_score
from pea_jax.judging.distances import Distance, distances
from pea_jax.judging.drawing import Paths, draw
from pea_jax.judging.image_reward import ImageRewards
from pea_jax.judging.inception import InceptionFeatures
from pea_jax.judging.picture_files import pictures_in
from pea_jax.judging.prompts import Prompt
from pea_jax.judging.report import PictureRow, choose_rows
from pea_jax.judging.systems import adapter_systems, english_systems
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.weights.image_reward import find_image_reward
from pea_jax.weights.inception import find_inception
from pea_jax.weights.locations import locate


@dataclasses.dataclass(frozen=True)
class Judges:
    """Folders or Hub ids of the models that judge; None: that metric is left out.

    `clip` reads the prompts as they are, `english_clip`, `pick_score` and `image_reward`, which is a file, their
    English. `reference` is a folder of pictures; `inception` the file of FID's network. CMMD is by `clip`, or else by
    `english_clip`.
    """

    clip: str | None = None
    english_clip: str | None = None
    pick_score: str | None = None
    image_reward: str | None = None
    reference: str | None = None
    inception: str | None = None

    def find(self) -> None:
        """Look for all of them, before hours are spent on drawing; from the Hub they are downloaded.

        Raises:
          PeaError: one is missing.
        """
        for name in filter(None, (self.clip, self.english_clip, self.pick_score)):
            locate(name)
        if self.image_reward:
            find_image_reward(self.image_reward)
        if self.reference:
            pictures_in(self.reference)
        if self.inception:
            find_inception(self.inception)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was found, and where the pictures are."""

    results: list[Result]
    distances: list[Distance]
    paths: Mapping[str, Paths]  # of each system
    notes: Sequence[str] = ()  # what was left out, and why


def evaluate_prompts(
    config: ConfigDict,
    prompts: Sequence[Prompt],
    adapters: Mapping[str, str],
    translated: Sequence[str] | None,
    seeds: Sequence[int],
    folder: pathlib.Path,
    judges: Judges,
) -> Evaluation:
    """English teacher, translation and teacher, and adapters: what they draw, and how good it is.

    Several processes share the drawing, each on its own devices; the first one judges, and it alone has results.

    Args:
      config: whose base model draws, as its `evaluation` says.
      prompts: what is drawn.
      adapters: their directories, by name.
      translated: the prompts in English, as a translator gives them.
      seeds: of the noise; all systems draw a prompt from the same noise.
      folder: for the pictures; those that are there are kept.
      judges: which models judge.

    Raises:
      PeaError: something is missing, broken or does not fit, or there is no system.
    """
    judges.find()
    mesh = meshes.make_mesh(devices=jax.local_devices()) if processes.several() else meshes.make_mesh(**config.mesh)
    frozen = load_models(config, mesh)
    pipeline = TextToImage(frozen.unet, frozen.vae, frozen.scheduler, mesh)
    systems = english_systems(config, frozen, prompts, translated)
    systems += adapter_systems(config, frozen, pipeline, adapters, prompts, mesh)
    if not systems:
        raise PeaError("nothing to compare: no adapter, no translation, no English beside the prompts")
    settings = {name: value for name, value in config.evaluation.items() if name != "seen"}
    sampling, size = Sampling(**settings), config.picture_size
    paths = {system.name: draw(folder, pipeline, system, sampling, size, seeds) for system in systems}
    del frozen, pipeline, systems  # the judges need the memory
    if not processes.is_first():
        return Evaluation([], [], paths)
    there = {name: [path for row in own for path in row if path] for name, own in paths.items()}
    results = judge_prompts(judges, paths, prompts, mesh, config.evaluation.seed)
    found = judge_folders(judges, there, mesh, config.evaluation.seed)
    return Evaluation(results, found, paths, _left_out(there) if judges.reference else [])


def judge_prompts(
    judges: Judges, paths: Mapping[str, Paths], prompts: Sequence[Prompt], mesh: Mesh, seed: int
) -> list[Result]:
    """All metrics of text and picture, one model after the other in memory."""
    categories, results = [prompt.category for prompt in prompts], []
    for metric in _metrics(judges, prompts, mesh):
        scores = {system: metric.scores(own) for system, own in paths.items()}
        results += compare(metric.name, scores, categories, seed)
    return results


def judge_folders(
    judges: Judges, folders: Mapping[str, Sequence[pathlib.Path]], mesh: Mesh, seed: int
) -> list[Distance]:
    """All distances to the reference folder; none without one."""
    if judges.reference is None:
        return []
    reference, name = pictures_in(judges.reference), judges.clip or judges.english_clip
    inception = InceptionFeatures(judges.inception, mesh) if judges.inception else None
    clip = CLIP.from_pretrained(name, mesh=mesh).image_embeds if name else None
    return distances(folders, reference, inception=inception, clip=clip, seed=seed)


def _left_out(systems: Mapping[str, Sequence[pathlib.Path]]) -> list[str]:
    few = {name: len(paths) for name, paths in systems.items() if len(paths) < 2}
    return [f"No distances of {name}: {count} pictures, two or more are needed." for name, count in few.items()]


def picture_rows(prompts: Sequence[Prompt], paths: Mapping[str, Paths], count: int) -> list[PictureRow]:
    """The first seed's pictures of at most `count` prompts."""
    rows = [PictureRow(prompt, {name: own[i][0] for name, own in paths.items()}) for i, prompt in enumerate(prompts)]
    return choose_rows(rows, count)


def _metrics(judges: Judges, prompts: Sequence[Prompt], mesh: Mesh) -> Iterator[Metric]:
    native, english = [prompt.prompt for prompt in prompts], [prompt.english for prompt in prompts]
    if judges.clip:
        yield clip_score("CLIPScore", CLIP.from_pretrained(judges.clip, mesh=mesh), native)
    if judges.english_clip:
        yield clip_score("CLIPScore in English", CLIP.from_pretrained(judges.english_clip, mesh=mesh), english)
    if judges.pick_score:
        yield pick_score(CLIP.from_pretrained(judges.pick_score, mesh=mesh), english)
    if judges.image_reward:
        yield Metric("ImageReward", ImageRewards(judges.image_reward, mesh=mesh), english)
