"""Folders of pictures: what cannot be judged is named, whatever Pillow says of it."""

import numpy as np
import pytest
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging.picture_files import opened, pictures_in


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_one_whose_white_nobody_knows_is_named(tmp_path, dtype):
    """A TIFF of 32 bits that is called PNG; pictures before it are read."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "b.png", "TIFF")
    pictures = opened(pictures_in(tmp_path))
    next(pictures)
    with pytest.raises(PeaError, match=r"b\.png: not a picture that can be read .mode ., 32 bits of one colour"):
        next(pictures)


def test_a_postscript_program_is_not_run(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", "EPS")
    with pytest.raises(PeaError, match=r"a\.png: not a picture that can be read .cannot identify image file"):
        next(opened([tmp_path / "a.png"]))
