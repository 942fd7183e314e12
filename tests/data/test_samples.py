import numpy as np
import pytest

from pea_jax.data import Sample
from pea_jax.errors import PeaError


@pytest.fixture
def sample(make_sample):
    def make(**record):
        return Sample("a.tar", "001", make_sample(7)["png"], {"caption_ru": "яблоко", "family": "fruit"} | record)

    return make


def test_fields(sample):
    assert sample().caption("ru") == "яблоко"
    assert sample(keywords_ru=["плод"]).keywords("ru") == ["плод"] and sample().keywords("ru") == []
    assert sample().family == "fruit" and Sample("a.tar", "001", b"", {}).family == "001"


def test_pixels(sample):
    pixels = sample().pixels()
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[3, 5], [7, 0, 0])


@pytest.mark.parametrize("record", [{}, {"caption_zh": ""}, {"caption_zh": " "}, {"caption_zh": None}])
def test_missing_caption_names_file_key_and_field(sample, record):
    with pytest.raises(PeaError, match=r"a\.tar: sample 001: no text in field caption_zh"):
        sample(**record).caption("zh")


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"GIF89a???", lambda data: data[:50]])
def test_undecodable_image_names_file_and_key(make_sample, damage):
    sample = Sample("a.tar", "001", damage(make_sample(7)["png"]), {})
    with pytest.raises(PeaError, match=r"a\.tar: sample 001: the image cannot be decoded"):
        sample.pixels()
