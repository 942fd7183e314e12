"""What is drawn, and from which noise; what a second start leaves alone."""

import dataclasses
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging.drawing import Pictures, System
from pea_jax.sampling.pipeline import Sampling


class Pipeline:
    """Draws the seed, the number of the noise, and the length of the text; keeps how much it was asked for."""

    def __init__(self):
        self.calls = []

    def generate(self, lengths, negative, sampling, *, height, width, indices):
        self.calls.append((sampling.seed, list(indices)))
        rows = [(sampling.seed, index, length) for index, length in zip(indices, lengths, strict=True)]
        return np.broadcast_to(np.array(rows, np.uint8)[:, None, None], (len(rows), height, width, 3))


def system(texts, name: str = "a b/c", **origin) -> System:
    conditioner = SimpleNamespace(encode_guided=lambda texts: ([len(text) for text in texts], None))
    return System(name, conditioner, texts, origin)


def drawn(tmp_path: pathlib.Path, **settings) -> tuple[Pictures, Pipeline]:
    pipeline = Pipeline()
    return Pictures(tmp_path, pipeline, Sampling(batch_size=2, **settings), (8, 16)), pipeline


def test_every_picture_from_its_own_noise(tmp_path: pathlib.Path):
    pictures, pipeline = drawn(tmp_path)
    texts = ["x", "xx", None, "xxxx", "xxxxx"]
    pictures.draw(system(texts), [3, 7])
    assert pipeline.calls == [(3, [0, 1]), (3, [3, 4]), (7, [0, 1]), (7, [3, 4])]
    for seed in (3, 7):
        for number, text in enumerate(texts):
            path = pictures.path("a b/c", seed, number)
            assert path.exists() == bool(text)
            if text:
                picture = np.asarray(Image.open(path))
                assert picture.shape == (16, 8, 3) and picture[0, 0].tolist() == [seed, number, len(text)]


def test_only_what_is_missing_is_drawn(tmp_path: pathlib.Path):
    pictures, pipeline = drawn(tmp_path)
    pictures.draw(system(["x", "y", "z"]), [0])
    pictures.path("a b/c", 0, 1).unlink()
    pipeline.calls.clear()
    pictures.draw(system(["x", "y", "z"]), [0, 1])
    assert pipeline.calls == [(0, [1]), (1, [0, 1]), (1, [2])]


def test_pictures_of_other_settings_are_refused(tmp_path: pathlib.Path):
    pictures, _ = drawn(tmp_path)
    pictures.draw(system(["x"], adapter="one"), [0])
    with pytest.raises(PeaError, match=r"adapter, texts changed"):
        pictures.draw(system(["y"], adapter="two"), [0])
    other, _ = drawn(tmp_path, steps=3)
    with pytest.raises(PeaError, match="steps changed"):
        other.draw(system(["x"], adapter="one"), [0])
    same = Pictures(tmp_path, Pipeline(), dataclasses.replace(Sampling(), batch_size=9, seed=5), (8, 16))
    same.draw(system(["x"], adapter="one"), [0])


def test_a_place_that_cannot_be_written_is_named(tmp_path: pathlib.Path):
    (tmp_path / "file").write_text("")
    pictures, _ = drawn(tmp_path / "file")
    with pytest.raises(PeaError, match="file/a_b_c: cannot be written"):
        pictures.draw(system(["x"]), [0])
