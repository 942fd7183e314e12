"""Any number of prompts to pictures, in batches of one size."""

import dataclasses
import itertools
import operator
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from pea_jax.sampling.picture_files import GuideFiles
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.sampling.prompt_files import Prompt
from pea_jax.text.conditioner import Conditioner


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A prompt with all that it is drawn with. Picture `row` has the noise `index` of `seed`."""

    row: int
    prompt: Prompt
    negative_prompt: str
    seed: int
    index: int
    width: int
    height: int

    def describe(self) -> dict[str, object]:
        """For a record of the picture."""
        fields = {name: value for name, value in vars(self).items() if name not in ("row", "prompt")}
        named = {name: getattr(self.prompt, name) for name in ("id", "category", "english")}
        given = {name: value for name, value in named.items() if value is not None}
        return dict(self.prompt.others, prompt=self.prompt.prompt, **fields, **given)


def drawings(
    prompts: Sequence[Prompt], *, negative_prompt: str, seeds: Sequence[int], width: int, height: int
) -> list[Drawing]:
    """A drawing for each prompt and seed; the arguments are for those prompts that do not say otherwise.

    A prompt with a seed of its own is drawn once, with the first noise of that seed; the noise of the others goes by
    the number of their prompt, so that several seeds give the pictures that each gives alone.
    """
    noises = [
        [(seed, i) for seed in seeds] if each.seed is None else [(each.seed, 0)] for i, each in enumerate(prompts)
    ]
    wanted = [(prompt, noise) for prompt, own in zip(prompts, noises, strict=True) for noise in own]
    return [
        Drawing(
            row,
            prompt,
            negative_prompt if prompt.negative_prompt is None else prompt.negative_prompt,
            *noise,
            *(prompt.size or (width, height)),
        )
        for row, (prompt, noise) in enumerate(wanted)
    ]


def check_all(pipeline: TextToImage, wanted: Sequence[Drawing], sampling: Sampling, guides: GuideFiles) -> None:
    """Raises `PeaError` as `draw_all` would, before anything is drawn."""
    for width, height in {(drawing.width, drawing.height) for drawing in wanted}:
        shown = guides.of_size(width, height).rows(1, height, width)
        pipeline.check_drawing(sampling, shown, height=height, width=width)


def draw_all(
    pipeline: TextToImage, conditioner: Conditioner, wanted: Sequence[Drawing], sampling: Sampling, guides: GuideFiles
) -> Iterator[tuple[Drawing, np.ndarray]]:
    """Each drawing with its picture `[H, W, 3]` uint8; those of one size follow one another.

    Raises:
      PeaError: as `TextToImage.generate`.
    """
    ordered = sorted(wanted, key=lambda drawing: (drawing.width, drawing.height))
    for (width, height), group in itertools.groupby(ordered, key=lambda drawing: (drawing.width, drawing.height)):
        shown = guides.of_size(width, height)
        for batch in batches(list(group), pipeline.at_once(sampling, height=height, width=width)):
            texts = [drawing.prompt.prompt for drawing in batch]
            negatives = sorted({drawing.negative_prompt for drawing in batch})
            states = conditioner.encode([*texts, *negatives])
            which = np.array([len(texts) + negatives.index(drawing.negative_prompt) for drawing in batch])
            pictures = pipeline.generate(
                jax.tree.map(operator.itemgetter(slice(len(texts))), states),
                jax.tree.map(operator.itemgetter(which), states),
                sampling,
                height=height,
                width=width,
                seeds=[drawing.seed for drawing in batch],
                indices=[drawing.index for drawing in batch],
                guides=shown,
            )
            # The last batch is filled up with its last drawing, which is wanted once.
            yield from {
                drawing.row: (drawing, picture) for drawing, picture in zip(batch, pictures, strict=True)
            }.values()


def batches(wanted: list[Drawing], largest: int) -> Iterator[list[Drawing]]:
    """As few as can be, all of one length: the last is filled up with its last drawing."""
    length = -(-len(wanted) // -(-len(wanted) // largest))
    for start in range(0, len(wanted), length):
        some = wanted[start : start + length]
        yield some + some[-1:] * (length - len(some))
