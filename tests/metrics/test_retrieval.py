"""Retrieval on the embedded corpus: what counts as found, and how much damage the distance forgives."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pea_jax.data import read_split
from pea_jax.errors import PeaError
from pea_jax.metrics.retrieval import Retrieval, hits_at, picture_distance

EMOJI = pathlib.Path(__file__).resolve().parents[2] / "assets" / "emoji"
SHARDS = ("train-00000", "train-00001", "val-00000")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return read_split(
        [str(EMOJI / f"emoji-{shard}.tar") for shard in SHARDS], ["en"], str(tmp_path_factory.mktemp("index"))
    )


@pytest.fixture(scope="module")
def retrieval(corpus):
    return Retrieval(
        np.stack([concept.pixels for concept in corpus]),
        [concept.key for concept in corpus],
        [concept.family for concept in corpus],
    )


def accepted_names(corpus, retrieval, name: str) -> set[str]:
    key = next(concept.key for concept in corpus if concept.names["en"] == name)
    return {corpus[i].names["en"] for i in retrieval.accepted(key)}


def blurred(x, sigma):
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def noisy(x, scale):
    return x + np.random.default_rng(0).normal(scale=scale, size=x.shape)


def patched(x):
    patches = blurred(noisy(np.zeros_like(x), 1.0), 3)
    return blurred(x, 1) + 0.15 * patches / patches.std()


def tinted(x):
    rng = np.random.default_rng(1)
    shape = (len(x), 1, 1, 3)
    return x * rng.uniform(0.85, 1.15, shape) + rng.uniform(-0.08, 0.08, shape)


def jpeg(x):
    files = [io.BytesIO() for _ in x]
    for file, picture in zip(files, x, strict=True):
        Image.fromarray(np.uint8(picture * 255 + 0.5)).save(file, "JPEG", quality=20)
    return np.stack([np.asarray(Image.open(file)) for file in files]) / 255


# What a small diffusion model or its autoencoder does to a picture, roughly.
DAMAGE = {
    "soft and noisy": lambda x: noisy(blurred(x, 2), 0.1),
    "patches of wrong colour": patched,
    "tint": lambda x: noisy(blurred(tinted(x), 1), 0.05),
    "half a pixel off": lambda x: blurred(ndimage.shift(x, (0, 0.5, 0.5, 0), order=1, mode="nearest"), 1),
    "a pixel off": lambda x: ndimage.shift(x, (0, 1, 1, 0), order=0, mode="nearest"),
    "JPEG": jpeg,
}


def test_every_original_finds_itself(corpus, retrieval):
    pixels = np.stack([concept.pixels for concept in corpus])
    ranks = retrieval.rank(pixels, [concept.key for concept in corpus])
    assert len(ranks) == 1606
    assert (ranks == 1).all()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_originals_are_found(corpus, retrieval, damage):
    some = corpus[::10]
    pixels = damage(np.stack([concept.pixels for concept in some]) / 255)
    pixels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    ranks = retrieval.rank(pixels, [concept.key for concept in some])
    assert hits_at(ranks, 1).value >= 0.99


def test_wrong_names_are_not_found(corpus, retrieval):
    pixels = np.stack([concept.pixels for concept in corpus[:300]])
    ranks = retrieval.rank(pixels, [concept.key for concept in corpus[300:600]])
    assert hits_at(ranks, 1).value < 0.02
    assert np.median(ranks) > 100


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("red apple", {"red apple"}),
        ("mage", {"mage", "man mage", "woman mage"}),
        ("kiss: man, man", {"kiss: man, man", "kiss: woman, man", "kiss: woman, woman"}),
        ("male sign", {"male sign"}),
        ("woman dancing", {"woman dancing"}),
        # The very same picture under three names, one of which has versions of other genders.
        ("family", {"family", "family: adult, adult, child", "family: man, man, boy"}),
        (
            "family: woman, woman, boy",
            {"family: woman, woman, boy", "family: man, woman, boy", "family: man, man, boy"}
            | {"family", "family: adult, adult, child"},
        ),
    ],
)
def test_what_counts_as_the_same(corpus, retrieval, name, accepted):
    assert accepted_names(corpus, retrieval, name) == accepted


def test_few_pictures_have_versions(corpus, retrieval):
    """Families of two to four with gender versions have 263 members; five pictures more are copies of some of them."""
    versions = [len(retrieval.accepted(concept.key)) for concept in corpus]
    assert max(versions) == 5
    assert sum(count > 1 for count in versions) == 263 + 5


def test_rank_counts_the_nearer_pictures():
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    pixels[:, ...] = np.array([0, 40, 100, 200], np.uint8)[:, None, None, None]
    small = Retrieval(pixels, ["a", "b", "c", "d"], ["a", "b", "c", "d"])
    generated = np.full((4, 8, 8, 3), 45, np.uint8)
    assert small.rank(generated, ["a", "b", "c", "d"]).tolist() == [2, 1, 3, 4]
    assert hits_at(np.array([2, 1, 3, 4]), 2)[::3] == (0.5, 4)


def test_a_tie_is_not_a_hit():
    pixels = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 100)])
    ranks = Retrieval(pixels, ["a", "b"], ["a", "b"]).rank(pixels[:1] // 2 + 50, ["a"])
    assert ranks.tolist() == [2]


def test_distance_equals_its_definition():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 32, 3)).astype(np.uint8)
    difference = ndimage.gaussian_filter((a / 255.0 - b / 255.0), (0, 1.0, 1.0, 0), mode="nearest")
    average = difference.mean((1, 2), keepdims=True)
    expected = np.sqrt(np.square(difference - average).mean((1, 2, 3)) + np.square(average).mean((1, 2, 3)) / 4)
    np.testing.assert_allclose(picture_distance(a, b), expected, rtol=1e-4)
    np.testing.assert_allclose(picture_distance(a, a), 0, atol=1e-6)
    assert picture_distance(a[:0], b[:0]).shape == (0,)


def test_bad_input_is_named(corpus, retrieval):
    picture = corpus[0].pixels[None]
    with pytest.raises(PeaError, match="'nothing' is not in the corpus"):
        retrieval.rank(picture, ["nothing"])
    with pytest.raises(PeaError, match="32, 32"):
        retrieval.rank(picture[:, ::2, ::2], [corpus[0].key])
    with pytest.raises(PeaError, match="must be of one size"):
        picture_distance(picture, picture[:, ::2])
