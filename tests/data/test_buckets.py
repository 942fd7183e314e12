import numpy as np
import pytest
from PIL import Image

from pea_jax.config import SDXL_BUCKETS
from pea_jax.data import buckets
from pea_jax.data.buckets import (
    add_time_ids,
    group_by_bucket,
    nearest_bucket,
    nearest_buckets,
    resize_and_crop,
)
from pea_jax.errors import PeaError


def coordinates(width: int, height: int) -> Image.Image:
    """A picture that holds x in red and y in green."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((100, 100), (640, 640)), ((300, 200), (768, 512)), ((10, 1000), (448, 896)), ((3000, 2), (896, 448))],
)
def test_nearest_bucket(size, bucket):
    assert nearest_bucket(size, SDXL_BUCKETS) == bucket


def test_published_buckets_hold_about_as_many_pixels():
    assert all(0.9 < width * height / 640**2 < 1.01 for width, height in SDXL_BUCKETS)


def test_nearest_buckets_of_many_are_those_of_each(rng):
    width, height = rng.integers(1, 3000, (2, 500))
    height[:9], width[:9] = 600, [300, 310, 403, 491, 600, 745, 1006, 1113, 1250]
    numbers, error = nearest_buckets(width, height, SDXL_BUCKETS)
    sizes = list(zip(width.tolist(), height.tolist(), strict=True))
    assert [SDXL_BUCKETS[number] for number in numbers] == [nearest_bucket(size, SDXL_BUCKETS) for size in sizes]
    aspects = np.array([w / h for w, h in SDXL_BUCKETS])
    np.testing.assert_allclose(error, np.abs(aspects - (width / height)[:, None]).min(axis=1))


def test_group_by_bucket():
    """Row 2 is not used, and no image is upright."""
    buckets = [(64, 64), (96, 64), (64, 96)]
    nearest, _ = nearest_buckets(np.array([64, 90, 50, 50, 91]), np.array([64, 60, 50, 50, 60]), buckets)
    groups = group_by_bucket(np.array([0, 1, 3, 4], np.int32), nearest, buckets)
    assert {bucket: rows.tolist() for bucket, rows in groups.items()} == {(64, 64): [0, 3], (96, 64): [1, 4]}
    assert groups[64, 64].dtype == np.int32


def test_orders_of_time_ids():
    """Original 300 wide, 200 high; crop 5 down, 7 right; target 96 wide, 64 high."""
    assert add_time_ids((300, 200), (5, 7), (96, 64)).tolist() == [200, 300, 5, 7, 64, 96]
    published = add_time_ids((300, 200), (5, 7), (96, 64), "published")
    assert published.tolist() == [300, 200, 5, 7, 96, 64] and published.dtype == np.float32
    with pytest.raises(PeaError, match="config.data.time_ids='pubished': not known; choose from sdxl, published"):
        add_time_ids((1, 1), (0, 0), (1, 1), "pubished")


def test_an_image_of_the_bucket_s_size_is_untouched(rng):
    image = coordinates(40, 24)
    pixels, top_left = resize_and_crop(image, (40, 24), rng)
    np.testing.assert_array_equal(pixels, np.asarray(image))
    assert top_left == (0, 0)


@pytest.mark.parametrize(("width", "height"), [(100, 32), (48, 80)])
def test_top_and_left_say_where_the_crop_lies(width, height, rng):
    bucket = (48, 32)
    corners = set()
    for _ in range(30):
        pixels, (top, left) = resize_and_crop(coordinates(width, height), bucket, rng)
        assert pixels.shape == (32, 48, 3) and pixels.dtype == np.uint8
        assert pixels[0, 0].tolist() == [left, top, 0] and pixels[-1, -1].tolist() == [left + 47, top + 31, 0]
        corners.add((top, left))
    assert len(corners) > 5


@pytest.mark.parametrize("size", [(31, 17), (200, 50), (50, 200), (63, 65), (1, 1)])
def test_resized_to_cover(size, rng):
    pixels, top_left = resize_and_crop(coordinates(*size), (64, 64), rng)
    assert pixels.shape == (64, 64, 3)
    assert 0 in top_left  # one side fits


def test_resizing_keeps_the_picture(rng):
    """Halved, the ramp of x still rises by two a pixel, from where the crop lies."""
    pixels, (_, left) = resize_and_crop(coordinates(240, 96), (64, 48), rng)
    expected = 2 * (np.arange(64) + left) + 0.5
    np.testing.assert_allclose(pixels[20, 1:-1, 0], expected[1:-1], atol=1)


@pytest.mark.parametrize("size", [(2, 800), (800, 2)])
def test_of_a_line_of_pixels_only_the_crop_is_resized(size, monkeypatch):
    """To the same picture and place, without the gigabytes that the whole would take."""
    picture = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)
    whole, resize = [], Image.Image.resize
    for longest in (50, 1000):
        sizes: list[tuple[int, int]] = []
        monkeypatch.setattr(
            Image.Image, "resize", lambda image, *a, sizes=sizes: sizes.append(a[0]) or resize(image, *a)
        )
        monkeypatch.setattr(buckets, "_LONGEST", longest)
        whole.append(resize_and_crop(Image.fromarray(picture), (32, 48), np.random.default_rng(0)))
        assert sizes == [(32, 48)] if longest == 50 else max(sizes[0]) > 10_000
    assert whole[0][1] == whole[1][1]
    np.testing.assert_allclose(whole[0][0].astype(int), whole[1][0], atol=1)
