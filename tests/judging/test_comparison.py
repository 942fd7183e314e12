"""Scores and differences against their definitions, with vectors that are made up."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from pea_jax.judging.comparison import clip_score, compare, pick_score
from pea_jax.judging.distances import distances
from pea_jax.metrics.frechet import cmmd, frechet_distance, kernel_distance

VECTORS = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0)}


class FakeCLIP:
    """A picture's vector is (red, green) of its first pixel; a text's is looked up."""

    logit_scale = 50.0

    def text_embeds(self, texts):
        return np.array([VECTORS[text] for text in texts], np.float32)

    def image_embeds(self, pictures):
        colours = np.array([np.asarray(picture)[0, 0, :2] for picture in pictures], np.float32)
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> list[list[pathlib.Path | None]]:
    """Two seeds of four prompts, that of the third prompt absent."""
    colours = [[(3, 4, 0), (5, 0, 0)], [(3, 4, 0), (0, 9, 0)], [None, None], [(3, 4, 0), (1, 0, 0)]]
    paths = [
        [tmp_path / f"{i}-{seed}.png" if colour else None for seed, colour in enumerate(row)]
        for i, row in enumerate(colours)
    ]
    for i, row in enumerate(colours):
        for path, colour in zip(paths[i], row, strict=True):
            if path:
                Image.new("RGB", (4, 4), colour).save(path)
    return paths


def test_scores_are_scaled_cosines(paths):
    texts = ["east", "north", "east", None]
    expected = np.array([[0.6, 1.0], [0.8, 1.0], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_allclose(clip_score("a", FakeCLIP(), texts).scores(paths), 100 * expected, rtol=1e-6)
    np.testing.assert_allclose(pick_score(FakeCLIP(), texts).scores(paths), 50 * expected, rtol=1e-6)
    west = ["west", None, None, None]
    assert clip_score("a", FakeCLIP(), west).scores(paths)[0].tolist() == [0, 0]
    np.testing.assert_allclose(pick_score(FakeCLIP(), west).scores(paths)[0], [-30, -50], rtol=1e-6)
    assert np.isnan(clip_score("a", FakeCLIP(), [None] * 4).scores(paths)).all()


def test_differences_are_paired_and_by_category():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(60, 2)) * 10
    second = first + 1 + 0.1 * rng.normal(size=(60, 2))
    first[:10] = np.nan  # the first system could not draw these
    categories = ["a"] * 30 + ["b"] * 30
    results = compare("m", {"first": first, "second": second}, categories)
    assert [(r.category, r.system, r.score.observations) for r in results] == [
        ("all", "first", 50), ("all", "second", 60), ("a", "first", 20), ("a", "second", 30),
        ("b", "first", 30), ("b", "second", 30),
    ]  # fmt: skip
    everything = results[1]
    np.testing.assert_allclose(everything.score.value, second.mean())
    assert everything.difference.observations == 50 and results[0].difference is None
    np.testing.assert_allclose(everything.difference.value, np.nanmean(second - first))
    assert everything.difference.low < 1 < everything.difference.high
    assert everything.difference.high - everything.difference.low < 0.1 < everything.score.high - everything.score.low
    assert results == compare("m", {"first": first, "second": second}, categories)


def test_a_system_without_a_score_is_left_out():
    scores = {"first": np.full((2, 1), np.nan), "second": np.ones((2, 1))}
    (only,) = compare("m", scores, ["a", "a"])
    assert (only.system, only.score.value, only.difference) == ("second", 1, None)


def test_distances_by_both_kinds_of_features(tmp_path: pathlib.Path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(9):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)).save(paths[-1])

    def features(pictures):
        return np.array([np.asarray(picture, np.float64)[0, :3, 0] / 255 for picture in pictures])

    x = [features([Image.open(path) for path in some]) for some in (paths[:4], paths[4:])]
    fid, kid, gaussian = distances({"s": paths[:4], "few": paths[:1]}, paths[4:], inception=features, clip=features)
    assert (fid.metric, fid.value, fid.spread) == ("FID", frechet_distance(*x), None)
    assert (kid.metric, kid.value, kid.spread) == ("KID", *kernel_distance(*x))
    assert (gaussian.metric, gaussian.value) == ("CMMD", cmmd(*x))
    assert {(d.system, d.pictures, d.reference) for d in (fid, kid, gaussian)} == {("s", 4, 5)}
    assert distances({"s": paths[:4]}, paths[4:]) == []
