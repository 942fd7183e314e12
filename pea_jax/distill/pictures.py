"""The pictures of a run: same prompts, same noise, from the teacher, the untrained and the trained adapter."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax import processes
from pea_jax.adapter import PEAdapter
from pea_jax.data import Captions, open_source
from pea_jax.data.skipping import first_good
from pea_jax.distill.models import FrozenModels
from pea_jax.distill.training_set import TrainingSet, caption_rules
from pea_jax.errors import BadSample, PeaError
from pea_jax.grids import save_grid
from pea_jax.report import Report, writing
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import AdapterConditioner, Conditioning, split_negative


class Pictures:
    """Draws `samples/step_N.png`: a row a prompt; half of the prompts from training, half held out."""

    def __init__(
        self,
        config: ConfigDict,
        prompts: Sequence[tuple[str, str]],
        models: FrozenModels,
        adapter: PEAdapter,
        mesh: Mesh,
        folder: pathlib.Path,
    ):
        settings = dict(config.sample)
        del settings["every"]
        self._sampling = Sampling(batch_size=settings.pop("count"), **settings)
        self._folder, self._size = folder, config.picture_size
        self._pipeline = TextToImage(models.unet, models.vae, models.scheduler, mesh)
        self._native, english = zip(*prompts, strict=True)
        self._conditioner = AdapterConditioner(models.student, adapter)
        self._adapted = jax.jit(self._conditioner.from_states)
        self._states, _ = models.student.encode([*self._native, ""])
        self._teacher = self._draw(models.teacher.encode([*english, ""]))
        self._start = self._student(self._conditioner.params[1])
        self._labels = [f"{a}\n{b}" for a, b in zip(self._native, english, strict=True)]

    def drawn(self, step: int) -> bool:
        """Whether a run that ended got as far as this."""
        return bool(processes.agree((self._folder / f"step_{step}.png").exists()))

    def draw(self, step: int, params, report: Report) -> None:
        """One grid, on disk and in TensorBoard."""
        columns = [self._teacher, self._start, self._student(params)]
        titles = ["English teacher", "student, step 0", f"student, step {step}"]
        rows = list(zip(*columns, strict=True))
        if not processes.is_first():
            return
        path = self._folder / f"step_{step}.png"
        with writing(path):
            grid = save_grid(path, rows, column_titles=titles, row_labels=self._labels)
        report.picture("samples", step, grid)

    def _student(self, params) -> np.ndarray:
        return self._draw(self._adapted(params, self._states))

    def _draw(self, conditioning: Conditioning) -> np.ndarray:
        """Pictures `[N, H, W, 3]` for N prompts followed by the empty one."""
        prompts, negative = split_negative(conditioning)
        width, height = self._size
        return self._pipeline.generate(prompts, negative, self._sampling, height=height, width=width)


def sample_prompts(config: ConfigDict, training: TrainingSet) -> list[tuple[str, str]]:
    """The captions that are drawn, each in the language and in English: of samples that are trained on, and held out.

    Raises:
      PeaError: a held-out shard is missing or damaged, or none of its captions can be drawn.
    """
    rules = dataclasses.replace(caption_rules(config), variants=1, more_languages=())
    held_out: list[Captions] = []
    if config.data.validation:
        with processes.first_goes_ahead("index"):
            source = open_source(config.data.validation, config.data.cache_dir or None)
        try:
            held_out = first_good(source, rules, config.sample.count // 2)
        except BadSample as error:
            raise PeaError(f"config.data.validation, which may be empty: {error}") from error
    used = training.first(len(training.kept))
    captions = first_good(training.source, rules, config.sample.count - len(held_out), used) + held_out
    return [(each.student[0], each.teacher[0]) for each in captions]
