"""Aspect buckets: a few shapes that images of any shape are resized and cropped to. Sizes are (width, height)."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

Size = tuple[int, int]

# PEA-Diffusion, SDXL training: about 0.4 megapixels each
SDXL: tuple[Size, ...] = (
    (448, 896),
    (448, 832),
    (512, 768),
    (576, 704),
    (640, 640),
    (704, 576),
    (768, 512),
    (832, 448),
    (896, 448),
)


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose width / height is nearest, as published."""
    aspect = size[0] / size[1]
    return min(buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def group_by_bucket(sizes: Sequence[Size], buckets: Sequence[Size]) -> dict[Size, np.ndarray]:
    """The numbers of the images that belong to each bucket; buckets without images are left out."""
    nearest = [buckets.index(nearest_bucket(size, buckets)) for size in sizes]
    rows = {bucket: np.flatnonzero(np.equal(nearest, number)) for number, bucket in enumerate(buckets)}
    return {bucket: found for bucket, found in rows.items() if len(found)}


def resize_and_crop(image: Image.Image, bucket: Size, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Resizes (bilinear) to cover the bucket, and cuts the bucket out at a random place.

    Returns:
      uint8 [H, W, 3] and SDXL's `add_time_ids`, float32 [6]: original height and width, top and left of the crop in
      the resized image, target height and width.
    """
    width, height = bucket
    scale = max(width / image.width, height / image.height)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image if covering == image.size else image.resize(covering, Image.Resampling.BILINEAR)
    left = int(rng.integers(resized.width - width + 1))
    top = int(rng.integers(resized.height - height + 1))
    pixels = np.asarray(resized.crop((left, top, left + width, top + height)))
    return pixels, np.array([image.height, image.width, top, left, height, width], np.float32)
