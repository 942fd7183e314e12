"""What is drawn, and from which noise; what a second start leaves alone."""

import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging.drawing import System, draw
from pea_jax.sampling.pipeline import Sampling


class Pipeline:
    """Draws the seed, the number of the noise, and the length of the text; keeps how much it was asked for."""

    def __init__(self):
        self.drawn = set()

    def check_drawing(self, *args, **kwargs):
        pass

    def at_once(self, sampling, *, height, width):
        return sampling.batch_size

    def generate(self, lengths, negative, sampling, *, height, width, seeds, indices, guides):
        rows = list(zip(seeds, indices, lengths, strict=True))
        self.drawn |= set(zip(seeds, indices, strict=True))
        return np.broadcast_to(np.array(rows, np.uint8)[:, None, None], (len(rows), height, width, 3))


def system(texts, **origin) -> System:
    conditioner = SimpleNamespace(encode=lambda texts: np.array([len(text) for text in texts]))
    return System("a b/c", conditioner, texts, origin)


def drawn(folder: pathlib.Path, texts, seeds, steps: int = 25, **origin) -> tuple[list, set]:
    pipeline = Pipeline()
    paths = draw(folder, pipeline, system(texts, **origin), Sampling(batch_size=2, steps=steps), (8, 16), seeds)
    return paths, pipeline.drawn


def test_every_picture_from_its_own_noise(tmp_path: pathlib.Path):
    texts = ["x", "xx", None, "xxxx", "xxxxx"]
    paths, which = drawn(tmp_path, texts, [3, 7])
    assert which == {(seed, number) for seed in (3, 7) for number in (0, 1, 3, 4)}
    assert paths[2] == [None, None] and paths[4][1] == tmp_path / "a_b_c" / "7" / "00004.png"
    for number, text in enumerate(texts):
        for path, seed in zip(paths[number], (3, 7), strict=True):
            if text:
                picture = np.asarray(Image.open(path))
                assert picture.shape == (16, 8, 3) and picture[0, 0].tolist() == [seed, number, len(text)]


def test_only_what_is_missing_is_drawn(tmp_path: pathlib.Path):
    paths, _ = drawn(tmp_path, ["x", "y", "z"], [0])
    paths[1][0].unlink()
    again, which = drawn(tmp_path, ["x", "y", "z"], [0, 1])
    assert which == {(0, 1), (1, 0), (1, 1), (1, 2)} and [row[0] for row in again] == [row[0] for row in paths]


def test_pictures_of_other_settings_are_refused(tmp_path: pathlib.Path):
    drawn(tmp_path, ["x"], [0], adapter="one")
    for changed, said in [(dict(adapter="two"), "adapter="), (dict(adapter="one", steps=3), "steps=")]:
        with pytest.raises(PeaError, match=f"a_b_c/0: its pictures were drawn with {said}"):
            drawn(tmp_path, ["x"], [0], **changed)
    with pytest.raises(PeaError, match="prompts="):
        drawn(tmp_path, ["y"], [0], adapter="one")
