"""Pictures as those CLIPs want them that come without `preprocessor_config.json`, as their published code does it.

Each function takes the model's folder and the side of the pictures that its network looks at.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging.pixels import OPENAI_MEAN, OPENAI_STD, Preprocessing, colour
from pea_jax.models.config_fields import check_choice
from pea_jax.weights.config_files import read_config
from pea_jax.weights.open_clip import CONFIG, read_open_clip_config

OPEN_CLIP_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "random": Image.Resampling.BICUBIC,  # in training; else this
}


def of_transformers(folder: pathlib.Path, side: int) -> Preprocessing:
    """As the file beside the weights says; errors as for `Preprocessing.from_folder`."""
    del side
    return Preprocessing.from_folder(folder)


def of_ruclip(folder: pathlib.Path, side: int) -> Preprocessing:
    """The middle square, bilinear (`RuCLIPProcessor` in ai-forever/ru-clip).

    Its `RandomResizedCrop` draws nothing, but for sides that differ by one pixel; the first of the two is taken here.

    Raises:
      PeaError: if `mean` or `std` in config.json are not three numbers.
    """
    mean, std = read_config(folder, _mean_and_std)
    return Preprocessing(
        size=(side, side), crop=None, resample=Image.Resampling.BILINEAR, mean=mean, std=std, square=True
    )


def of_cn_clip(folder: pathlib.Path, side: int) -> Preprocessing:
    """The whole picture, stretched to a square (`image_transform` in OFA-Sys/Chinese-CLIP)."""
    del folder
    return Preprocessing(size=(side, side), crop=None)


def of_rinna(folder: pathlib.Path, side: int) -> Preprocessing:
    """The shorter side to its length, bilinear, and the middle (`_transform` in rinnakk/japanese-clip)."""
    del folder
    return Preprocessing(size=side, crop=(side, side), resample=Image.Resampling.BILINEAR, crop_to_even=True)


def of_open_clip(folder: pathlib.Path, side: int) -> Preprocessing:
    """As `preprocess_cfg` says, but for the size, which is the network's (`image_transform_v2` in open_clip).

    Raises:
      PeaError: for a way to resize that is not supported, or a colour that is not three numbers.
    """
    _, fields = read_open_clip_config(folder)
    try:
        return _open_clip(fields, side)
    except (PeaError, TypeError, ValueError) as error:
        raise PeaError(f"{folder / CONFIG}: preprocess_cfg: {error}") from error


def _open_clip(fields: Mapping[str, Any], side: int) -> Preprocessing:
    stated = {name: value for name, value in fields.items() if value is not None}
    # One number stands for all three colours.
    stated |= {name: [stated[name]] * 3 for name in ("mean", "std") if isinstance(stated.get(name), int | float)}
    check_choice("mode", [stated.get("mode", "RGB")], ("RGB",))
    filter_name, how = stated.get("interpolation", "bicubic"), stated.get("resize_mode", "shortest")
    check_choice("interpolation", [filter_name], tuple(OPEN_CLIP_FILTERS))
    check_choice("resize_mode", [how], ("shortest", "squash"))
    mean, std = _mean_and_std(stated)
    shared = Preprocessing(resample=OPEN_CLIP_FILTERS[filter_name], mean=mean, std=std, crop_to_even=True)
    if how == "squash":
        return dataclasses.replace(shared, size=(side, side), crop=None)
    return dataclasses.replace(shared, size=side, crop=(side, side))


def _mean_and_std(fields: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return colour(fields.get("mean") or OPENAI_MEAN), colour(fields.get("std") or OPENAI_STD)
