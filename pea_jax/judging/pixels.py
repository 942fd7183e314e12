"""Pictures as a CLIP wants them, by the `preprocessor_config.json` beside its weights."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from pea_jax.data.samples import opaque
from pea_jax.errors import PeaError

FILE, WHOLE_FILE = "preprocessor_config.json", "processor_config.json"
KINDS = re.compile(r"(Chinese)?CLIP(FeatureExtractor|ImageProcessor)(Fast|Pil)?")
LONGEST = 50  # times the shorter side
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resize, crop from the centre, scale, normalise, as transformers `CLIPImageProcessor` does; its defaults.

    Attributes:
      size: height and width, or one number: that of the shorter side. None: as it is.
      crop: height and width; what a picture lacks is black. None: no crop.
      resample: PIL's number of the filter.
      rescale: factor on 0..255.
      mean, std: of red, green, blue.
      square: whether the largest square in the middle is cut out first of all.
      crop_to_even: where a crop would begin between two pixels, whether it begins at the one of even number, as in
        torchvision, or at the first.
    """

    size: int | Size | None = 224
    crop: Size | None = (224, 224)
    resample: int = Image.Resampling.BICUBIC
    rescale: float = 1 / 255
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    square: bool = False
    crop_to_even: bool = False

    @classmethod
    def from_folder(cls, folder: str | pathlib.Path) -> "Preprocessing":
        """As the file in a model's folder says.

        Raises:
          PeaError: there is no such file, or it describes another preprocessing than CLIP's.
        """
        path, fields = _read(pathlib.Path(folder))
        try:
            return cls._from_fields(fields)
        except (TypeError, ValueError, KeyError) as error:
            raise PeaError(f"{path}: not the preprocessing of a CLIP ({error!r}); download it again") from error
        except PeaError as error:
            raise PeaError(f"{path}: {error}") from error

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        kind = str(fields.get("image_processor_type") or fields.get("feature_extractor_type") or "CLIPImageProcessor")
        if not KINDS.fullmatch(kind):
            raise PeaError(f"{kind} is not supported (only that of CLIP and of Chinese-CLIP)")
        if fields.get("do_pad"):
            raise PeaError("do_pad=True is not supported")
        size = _size(fields.get("size", cls.size)) if fields.get("do_resize", True) else None
        crop = _size(fields.get("crop_size", cls.crop)) if fields.get("do_center_crop", True) else None
        normalised = fields.get("do_normalize", True)
        return cls(
            size=size,
            crop=(crop, crop) if isinstance(crop, int) else crop,
            resample=Image.Resampling(fields.get("resample", cls.resample)),
            rescale=float(fields.get("rescale_factor", cls.rescale)) if fields.get("do_rescale", True) else 1.0,
            mean=colour(fields.get("image_mean") or cls.mean) if normalised else (0.0,) * 3,
            std=colour(fields.get("image_std") or cls.std) if normalised else (1.0,) * 3,
        )

    def fit(self, picture: Image.Image) -> np.ndarray:
        """Resized and cropped, `[height, width, 3]` uint8; what is transparent is white."""
        picture = opaque(picture)
        if self.square:
            picture = _cropped(picture, (min(picture.size),) * 2)
        if isinstance(self.size, int) and self.crop is not None:
            picture = _without_ends(picture)
        if self.size is not None:
            picture = picture.resize(self._resized(picture.size), Image.Resampling(self.resample))
        if self.crop is not None:
            picture = _cropped(picture, self.crop, to_even=self.crop_to_even)
        return np.asarray(picture)

    def normalise(self, pixels: jax.Array) -> jax.Array:
        """`[B, H, W, 3]` float32 of what `fit` gives; pure."""
        mean, std = (jnp.asarray(values, jnp.float32)[None, None, None] for values in (self.mean, self.std))
        return (pixels.astype(jnp.float32) * self.rescale - mean) / std

    def _resized(self, size: Size) -> Size:
        """Width and height after resizing, of a picture of that width and height."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        assert self.size is not None, "asked only where pictures are resized"
        long = int(self.size * max(size) / min(size))
        return (self.size, long) if size[0] <= size[1] else (long, self.size)


def _without_ends(picture: Image.Image) -> Image.Image:
    """What the crop is taken from: a line of pixels would take gigabytes if all of it were resized."""
    longest = LONGEST * min(picture.size)
    # By an even number of pixels, so that the middle stays where it is.
    width, height = (side if side <= longest else longest + (side - longest) % 2 for side in picture.size)
    return _cropped(picture, (height, width))


def _cropped(picture: Image.Image, size: Size, *, to_even: bool = False) -> Image.Image:
    """What is in the middle, of that height and width."""
    height, width = size
    left, top = (round(over / 2) if to_even else over // 2 for over in (picture.width - width, picture.height - height))
    return picture.crop((left, top, left + width, top + height))


def _read(folder: pathlib.Path) -> tuple[pathlib.Path, Mapping[str, Any]]:
    """The file, and its fields; newer versions of transformers keep them with those of the tokenizer."""
    for path, part in ((folder / FILE, ""), (folder / WHOLE_FILE, "image_processor")):
        if not path.is_file():
            continue
        try:
            fields = json.loads(path.read_bytes())
            fields = fields[part] if part else fields
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PeaError(f"{path}: cannot be read ({error!r}); download it again") from error
        if not isinstance(fields, Mapping):
            raise PeaError(f"{path}: must hold a JSON object; download it again")
        return path, fields
    raise PeaError(f"{folder}: no {FILE}, which says how pictures are prepared; download it with the model")


def _size(value: Any) -> int | Size:
    if isinstance(value, Mapping):
        value = value["shortest_edge"] if "shortest_edge" in value else (value["height"], value["width"])
    sides = value if isinstance(value, tuple | list) else (value,)
    if len(sides) not in (1, 2) or any(type(side) is not int or not 0 < side <= 4096 for side in sides):
        raise PeaError(f"size {value!r} must be one side or two, from 1 to 4096 pixels")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def colour(values: Any) -> tuple[float, ...]:
    """Three numbers.

    Raises:
      PeaError: if there are not three. TypeError, ValueError: if they are no numbers.
    """
    if len(values) != 3:
        raise PeaError(f"{values!r} must be three numbers, for red, green and blue")
    return tuple(map(float, values))
