"""What each system draws for each prompt and seed, in folders that a second start completes."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pea_jax.sampling.picture_folder import draw_folder
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.sampling.prompt_drawing import Drawing
from pea_jax.sampling.prompt_files import Prompt
from pea_jax.text.conditioner import Conditioner

Paths = list[list[pathlib.Path | None]]  # by prompt and seed; None: nothing to draw


@dataclasses.dataclass(frozen=True)
class System:
    """A name, and what each prompt's text is for it; None: it has none, and draws nothing.

    `origin` says what must be the same for pictures to be the same: the base model and its numbers, the adapter.
    """

    name: str
    conditioner: Conditioner
    texts: Sequence[str | None]
    origin: Mapping[str, Any]


def draw(
    folder: pathlib.Path,
    pipeline: TextToImage,
    system: System,
    sampling: Sampling,
    size: tuple[int, int],
    seeds: Sequence[int],
) -> Paths:
    """`folder/SYSTEM/SEED/00012.png`: prompt number 12, from the noise of that seed and number in every system.

    Args:
      folder: of all systems; what is there already is kept.
      pipeline, sampling: how it is drawn; the seed of `sampling` does not count.
      system: who draws.
      size: width and height.
      seeds: for each of which every prompt is drawn.

    Raises:
      PeaError: the folder holds pictures that were drawn in another way, or cannot be written.
    """
    paths: Paths = [[None] * len(seeds) for _ in system.texts]
    for place, seed in enumerate(seeds):
        wanted = [Drawing(row, Prompt(text), "", seed, row, *size) for row, text in enumerate(system.texts) if text]
        drawn = draw_folder(
            folder / folder_name(system.name) / str(seed),
            pipeline,
            system.conditioner,
            wanted,
            dataclasses.replace(sampling, seed=seed),
            settings=system.origin,
        )
        for drawing, path in zip(wanted, drawn, strict=True):
            paths[drawing.row][place] = path
    return paths


def folder_name(system: str) -> str:
    """Of a system's pictures."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in system)
