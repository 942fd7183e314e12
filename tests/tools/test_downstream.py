"""What the ControlNet and the LoRA of the embedded teacher are taught."""

import numpy as np

from tools.downstream import pictures

PICTURE = np.full((64, 64, 3), 255, np.uint8)
PICTURE[16:40, 10:30] = (200, 30, 30)


def test_style():
    """White stays white, black is cobalt, and what is darker comes out darker."""
    greys = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, -1)
    styled = pictures.gzhel(greys)[0].astype(int)
    np.testing.assert_array_equal(styled[255], pictures.WHITE)
    np.testing.assert_array_equal(styled[0], pictures.COBALT)
    assert (np.diff(styled, axis=0) >= 0).all()


def test_edges_are_of_the_shape():
    found = pictures.edges(PICTURE)
    assert found.shape == PICTURE.shape and set(np.unique(found)) == {0, 255}
    rows, columns = np.nonzero(found[..., 0])
    assert abs(rows.min() - 16) <= 1 >= abs(rows.max() - 39)
    assert abs(columns.min() - 10) <= 1 >= abs(columns.max() - 29)


def test_moved_pictures_are_those_of_the_seed():
    one, two = (pictures.moved(PICTURE, np.random.default_rng(seed)) for seed in (3, 4))
    np.testing.assert_array_equal(one, pictures.moved(PICTURE, np.random.default_rng(3)))
    assert np.any(one != two) and one.dtype == np.uint8 and one.shape == PICTURE.shape
    assert 0.3 < (one[..., 1] < 150).sum() / (PICTURE[..., 1] < 150).sum() <= 1.05


def test_pixels_are_between_minus_one_and_one():
    tensor = pictures.to_tensor(PICTURE[None])
    assert tensor.shape == (1, 3, 64, 64) and tensor.max() == 1.0
    np.testing.assert_allclose(tensor[0, :, 20, 20], np.array([200, 30, 30]) / 127.5 - 1, atol=1e-6)
