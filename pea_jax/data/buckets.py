"""Aspect buckets: a few shapes that images of any shape are resized and cropped to. Sizes are (width, height)."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pea_jax.errors import PeaError

Size = tuple[int, int]

TIME_ID_ORDERS = ("sdxl", "published")
_LONGEST = 50  # times a bucket's longer side


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose width / height is nearest, as published."""
    aspect = size[0] / size[1]
    return min(buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def nearest_buckets(width: np.ndarray, height: np.ndarray, buckets: Sequence[Size]) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_bucket` of many images, `width` and `height` [N].

    Returns:
      The number of each image's bucket, uint16 [N], and how far its width / height is from the bucket's, float64 [N].
    """
    aspect = width / height
    nearest, error = np.zeros(len(aspect), np.uint16), np.full(len(aspect), np.inf)
    for number, bucket in enumerate(buckets):
        distance = np.abs(bucket[0] / bucket[1] - aspect)
        closer = distance < error
        nearest[closer], error[closer] = number, distance[closer]
    return nearest, error


def group_by_bucket(rows: np.ndarray, nearest: np.ndarray, buckets: Sequence[Size]) -> dict[Size, np.ndarray]:
    """Those of `rows` that belong to each bucket, in order; buckets without images are left out.

    Args:
      rows: [M] integers, the images that are used.
      nearest: [N], the number of each image's bucket.
      buckets: (width, height).
    """
    groups = {bucket: rows[nearest[rows] == number] for number, bucket in enumerate(buckets)}
    return {bucket: found for bucket, found in groups.items() if len(found)}


def resize_and_crop(image: Image.Image, bucket: Size, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """Resizes (bilinear) to cover the bucket, and cuts the bucket out at a random place.

    Returns:
      uint8 [H, W, 3], and top and left of the crop in the resized image.
    """
    width, height = bucket
    scale = max(width / image.width, height / image.height)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left = int(rng.integers(covering[0] - width + 1))
    top = int(rng.integers(covering[1] - height + 1))
    crop = left, top, left + width, top + height
    if max(covering) > _LONGEST * max(bucket):  # a line of pixels, which as a whole would take gigabytes
        sides = image.size * 2
        edges = zip(crop, sides, covering * 2, strict=True)
        x0, y0, x1, y1 = (min(edge * side / whole, side) for edge, side, whole in edges)
        return np.asarray(image.resize(bucket, Image.Resampling.BILINEAR, (x0, y0, x1, y1))), (top, left)
    resized = image if covering == image.size else image.resize(covering, Image.Resampling.BILINEAR)
    return np.asarray(resized.crop(crop)), (top, left)


def add_time_ids(original: Size, top_left: tuple[int, int], target: Size, order: str = "sdxl") -> np.ndarray:
    """What the UNet is told of `original_size`, `crops_coords_top_left` and `target_size`, float32 [6].

    Args:
      original: width and height of the image before it was resized.
      top_left: of the crop.
      target: width and height of the bucket.
      order: "sdxl" as SDXL was trained, height before width; "published" as PEA-Diffusion gives them
        (utils/custom_dataset_sdxl.py), width before height. The crop is top before left in both.

    Raises:
      PeaError: there is no such order.
    """
    check_time_ids(order)
    if order == "sdxl":
        original, target = original[::-1], target[::-1]
    return np.array([*original, *top_left, *target], np.float32)


def check_time_ids(order: str) -> None:
    """Refuse an order that `add_time_ids` does not know.

    Raises:
      PeaError: naming those that it knows.
    """
    if order not in TIME_ID_ORDERS:
        raise PeaError(f"config.data.time_ids={order!r}: not known; choose from {', '.join(TIME_ID_ORDERS)}")


def check_weights(weights: Sequence[float], buckets: Sequence[Size]) -> None:
    """Refuse bucket weights that do not go with the buckets.

    Raises:
      PeaError: not one for each bucket, one below 0, or none above it.
    """
    if weights and (len(weights) != len(buckets) or min(weights) < 0 or not sum(weights)):
        raise PeaError(
            f"config.data.bucket_weights={tuple(weights)}: must be {len(buckets)} numbers, one for each of "
            "config.data.buckets, none below 0 and not all 0; () takes them from the data"
        )
