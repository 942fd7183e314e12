import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from pea_jax.data import Sample
from pea_jax.errors import BadSample, PeaError


@pytest.fixture
def sample(make_sample):
    def make(**record):
        return Sample("a.tar", "001", make_sample(7)["png"], {"caption_ru": "яблоко", "family": "fruit"} | record)

    return make


def test_fields(sample):
    assert sample().caption("ru") == "яблоко"
    assert sample(keywords_ru=["плод"]).keywords("ru") == ["плод"] and sample().keywords("ru") == []
    assert sample().family == "fruit" and Sample("a.tar", "001", b"", {}).family == "001"


def test_a_sample_whose_record_names_no_family_is_one_of_its_own(sample):
    """Else retrieval would count each of them for all the others."""
    for none in (None, [], ["fruit"], {"fruit": 1}):
        assert sample(family=none).family == "001"
    assert sample(family=7).family == "7" and sample(family="").family == ""


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


def test_a_postscript_program_is_not_run():
    program = io.BytesIO()
    Image.new("RGB", (8, 8)).save(program, "EPS")
    assert Image.open(program).format == "EPS"
    with pytest.raises(PeaError, match=r"the image cannot be decoded \(of no known kind\)"):
        Sample("a.tar", "001", program.getvalue(), {}).size()


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


def encoded(image: Image.Image, kind: str, **options) -> Sample:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Sample("a.tar", "001", buffer.getvalue(), {})


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [*range(1, 10)])  # 9 is none
def test_pictures_of_cameras_stand_upright(rng, kind, orientation):
    noise = Image.fromarray(rng.integers(256, size=(9, 7, 3), dtype=np.uint8)).resize((61, 47))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    found = encoded(noise, kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(found.image)))
    np.testing.assert_array_equal(found.pixels(), np.asarray(expected))
    assert found.size() == found.rgb().size == expected.size


def test_damaged_exif_changes_nothing(rng):
    noise = Image.fromarray(rng.integers(256, size=(9, 7, 3), dtype=np.uint8))
    found = encoded(noise, "PNG", exif=b"Exif\0\0MM no exif")
    np.testing.assert_array_equal(found.pixels(), np.asarray(noise))
    assert found.size() == (7, 9)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_one_can_look_through_is_on_white(mode):
    glass = np.zeros((4, 6, 4), np.uint8)
    glass[:, 3:, 3] = 255  # black under all of it
    found = encoded(Image.fromarray(glass).convert(mode), "PNG").pixels()
    np.testing.assert_array_equal(found[:, :3], 255)
    np.testing.assert_array_equal(found[:, 3:], 0)


def test_sixteen_bits_are_not_cut_off():
    grey = np.arange(0, 65536, 1024, np.uint16).reshape(8, 8)
    found = encoded(Image.fromarray(grey), "PNG").pixels()
    np.testing.assert_array_equal(found, np.repeat(grey[..., None] // 256, 3, axis=2))


def test_numbers_of_unknown_range_are_no_picture():
    with pytest.raises(BadSample, match=r"sample 001: the image cannot be decoded \(mode F, 32 bits of one colour\)"):
        encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF").pixels()
