import numpy as np
import pytest
from PIL import Image

from pea_jax.data.buckets import SDXL, group_by_bucket, nearest_bucket, resize_and_crop


def coordinates(width: int, height: int) -> Image.Image:
    """A picture that holds x in red and y in green."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((100, 100), (640, 640)), ((300, 200), (768, 512)), ((10, 1000), (448, 896)), ((3000, 2), (896, 448))],
)
def test_nearest_bucket(size, bucket):
    assert nearest_bucket(size, SDXL) == bucket


def test_published_buckets_hold_about_as_many_pixels():
    assert all(0.9 < width * height / 640**2 < 1.01 for width, height in SDXL)


def test_group_by_bucket():
    groups = group_by_bucket([(64, 64), (90, 60), (50, 50), (91, 60)], [(64, 64), (96, 64), (64, 96)])
    assert {bucket: rows.tolist() for bucket, rows in groups.items()} == {(64, 64): [0, 2], (96, 64): [1, 3]}


def test_an_image_of_the_bucket_s_size_is_untouched(rng):
    image = coordinates(40, 24)
    pixels, time_ids = resize_and_crop(image, (40, 24), rng)
    np.testing.assert_array_equal(pixels, np.asarray(image))
    np.testing.assert_array_equal(time_ids, [24, 40, 0, 0, 24, 40])


@pytest.mark.parametrize(("width", "height"), [(100, 32), (48, 80)])
def test_time_ids_say_where_the_crop_lies(width, height, rng):
    """Heights and tops come first, as SDXL was trained."""
    bucket = (48, 32)
    corners = set()
    for _ in range(30):
        pixels, time_ids = resize_and_crop(coordinates(width, height), bucket, rng)
        assert pixels.shape == (32, 48, 3) and pixels.dtype == np.uint8 and time_ids.dtype == np.float32
        top, left = time_ids[2:4]
        assert pixels[0, 0].tolist() == [left, top, 0] and pixels[-1, -1].tolist() == [left + 47, top + 31, 0]
        assert time_ids[[0, 1, 4, 5]].tolist() == [height, width, 32, 48]
        corners.add((top, left))
    assert len(corners) > 5


@pytest.mark.parametrize("size", [(31, 17), (200, 50), (50, 200), (63, 65), (1, 1)])
def test_resized_to_cover(size, rng):
    pixels, time_ids = resize_and_crop(coordinates(*size), (64, 64), rng)
    assert pixels.shape == (64, 64, 3)
    assert time_ids[:2].tolist() == [size[1], size[0]]
    assert 0 in time_ids[2:4]  # one side fits


def test_resizing_keeps_the_picture(rng):
    """Halved, the ramp of x still rises by two a pixel, from where the crop lies."""
    pixels, time_ids = resize_and_crop(coordinates(240, 96), (64, 48), rng)
    expected = 2 * (np.arange(64) + time_ids[3]) + 0.5
    np.testing.assert_allclose(pixels[20, 1:-1, 0], expected[1:-1], atol=1)
