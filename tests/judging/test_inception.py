"""How pictures reach FID's Inception; the network itself is tested beside its definition."""

import jax
import numpy as np
from flax import nnx
from PIL import Image

from pea_jax.judging import inception


class Means(nnx.Module):
    """In place of the network: the mean of each colour."""

    def __init__(self):
        self.factor = nnx.Param(np.float32(2))

    def __call__(self, pixels: jax.Array) -> jax.Array:
        return self.factor[...] * pixels.mean((1, 2))


def test_resizing_keeps_what_has_the_size_and_colours():
    pixels = np.random.default_rng(0).integers(0, 256, (299, 299, 3)).astype(np.uint8)
    np.testing.assert_array_equal(inception.resize(Image.fromarray(pixels)), pixels)
    small = inception.resize(Image.new("RGB", (64, 20), (10, 20, 30)))
    np.testing.assert_allclose(small, np.broadcast_to([10, 20, 30], (299, 299, 3)), rtol=1e-6)
    sharp = inception.resize(Image.fromarray(pixels[:50, :50]))
    assert sharp.min() == 0 and sharp.max() == 255 and np.unique(sharp).size > 1000  # not rounded to 8 bits


def test_pictures_of_sixteen_bits_are_not_white():
    grey = np.full((299, 299), 25700, np.uint16)
    np.testing.assert_array_equal(inception.resize(Image.fromarray(grey)), np.full((299, 299, 3), 100))


def test_features_of_any_number(monkeypatch):
    monkeypatch.setattr(inception, "load_inception", lambda path, mesh: Means())
    features = inception.InceptionFeatures("file")
    greys = [Image.new("L", (8, 9), i) for i in range(70)]
    expected = np.repeat(2 * (np.arange(70)[:, None] - 128) / 128, 3, axis=1)
    np.testing.assert_allclose(features(greys), expected, atol=1e-5)
    assert features([]).shape == (0, 2048)
