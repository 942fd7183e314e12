import io

import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [dict(quality=60), dict(progressive=True), dict(subsampling=0), dict(subsampling=1)]
)
def test_jpeg_is_decoded_as_pillow_does(rng, mode, options):
    noise = Image.fromarray(rng.integers(256, size=(9, 7, 3), dtype=np.uint8)).resize((61, 47)).convert(mode)
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    np.testing.assert_array_equal(Sample("a.tar", "001", buffer.getvalue(), {}).pixels(), expected)


def test_a_cut_jpeg_is_bad(rng):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    data = buffer.getvalue()
    for size in range(100, len(data) - 100, 500):
        with pytest.raises(PeaError, match="cannot be decoded"):
            Sample("a.tar", "001", data[:size], {}).pixels()
