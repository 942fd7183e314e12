"""Guides from files: their size, their channels, and what is no picture."""

import numpy as np
import pytest
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging.picture_files import opened
from pea_jax.sampling.picture_files import GuideFiles

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def test_pictures_in_the_size_of_the_drawing(tmp_path):
    Image.fromarray(PICTURE).convert("RGBA").save(tmp_path / "a.png")
    files = GuideFiles(
        dict(image=str(tmp_path / "a.png"), mask_image=str(tmp_path / "a.png")), {"control_guidance_end": 0.5}
    )
    guides = files.of_size(8, 6)
    np.testing.assert_array_equal(guides.image, PICTURE[None])
    assert guides.mask_image.shape == (1, 6, 8) and guides.control_image is None and guides.control_guidance_end == 0.5
    smaller = files.of_size(4, 3)
    assert smaller.image.shape == (1, 3, 4, 3) and smaller.rows(2, 3, 4).mask_image.shape == (2, 3, 4)
    described = files.describe()
    Image.fromarray(PICTURE[::-1]).save(tmp_path / "a.png")
    assert files.describe() == described != GuideFiles(files.paths, files.numbers).describe()


def test_sixteen_bits_are_not_cut_off(tmp_path):
    """As depth maps are saved."""
    depth = np.arange(0, 65536, 1024, np.uint16).reshape(8, 8)
    Image.fromarray(depth).save(tmp_path / "a.png")
    guides = GuideFiles(dict.fromkeys(("control_image", "mask_image"), str(tmp_path / "a.png"))).of_size(8, 8)
    np.testing.assert_array_equal(guides.control_image[0], np.repeat(depth[..., None] // 256, 3, axis=2))
    np.testing.assert_array_equal(guides.mask_image[0], depth // 256)


def test_what_cannot_be_decoded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    head, chunk, rest = (tmp_path / "a.png").read_bytes().rpartition(b"IDAT")
    (tmp_path / "a.png").write_bytes(head + b"\xde" + chunk[1:] + rest)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "b.tiff")
    for name, message in (("a.png", "broken PNG file"), ("b.tiff", "mode F, 32 bits")):
        with pytest.raises(PeaError, match=rf"{name}: cannot be decoded .{message}"):
            GuideFiles(dict(image=str(tmp_path / name))).of_size(8, 8)


def test_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    Image.fromarray(PICTURE).save(tmp_path / "c.png", "EPS")  # a program, which Pillow would have Ghostscript run
    for name, message in (
        ("a.png", "not a picture"),
        ("b.png", "cannot be read .No such file"),
        ("c.png", "not a pic"),
    ):
        with pytest.raises(PeaError, match=message):
            GuideFiles(dict(image=str(tmp_path / name))).of_size(8, 8)


def test_a_picture_of_absurd_size(tmp_path, monkeypatch):
    """Which Pillow refuses in an exception of its own."""
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(PeaError, match=r"a\.png: Image size .48 pixels. exceeds .*; give a smaller picture"):
        GuideFiles(dict(image=str(tmp_path / "a.png"))).of_size(8, 8)
    with pytest.raises(PeaError, match=r"a\.png: not a picture that can be read .Image size .*; remove it"):
        list(opened([tmp_path / "a.png"]))
