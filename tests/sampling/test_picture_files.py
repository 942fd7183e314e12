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


def test_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    for name, message in (("a.png", "not a picture"), ("b.png", "cannot be read .No such file")):
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
