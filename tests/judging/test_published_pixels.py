"""Preparing pictures where no file says how, against what torchvision's transforms of the published code give."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging import published_pixels
from pea_jax.judging.pixels import OPENAI_MEAN, OPENAI_STD, Preprocessing
from pea_jax.weights.open_clip import CONFIG

SIDE = 5
# Red of the prepared picture, row by row: what torchvision 0.29.2 with Pillow 12.3 gives by the transforms in
# ai-forever/ru-clip, OFA-Sys/Chinese-CLIP and rinnakk/japanese-clip, and by `image_transform_v2` of open_clip 3.3.0.
GOLDEN = {
    ("ruCLIP", (16, 25)): [
        114, 122, 122, 115, 105, 127, 111, 105, 125, 117, 150, 159, 142, 153, 112, 131, 144, 167, 130, 120,
        119, 145, 151, 101, 141,
    ],
    ("ruCLIP", (23, 9)): [
        115, 134, 105, 111, 102, 130, 143, 108, 98, 73, 62, 142, 102, 159, 107, 116, 172, 169, 169, 159,
        143, 157, 129, 110, 111,
    ],
    ("cn_clip", (16, 25)): [
        144, 140, 103, 141, 116, 122, 114, 111, 120, 106, 148, 153, 145, 149, 112, 114, 147, 163, 107, 135,
        111, 120, 135, 119, 117,
    ],
    ("cn_clip", (23, 9)): [
        139, 124, 114, 90, 124, 134, 132, 111, 103, 138, 155, 117, 125, 133, 132, 139, 127, 174, 136, 106,
        127, 159, 122, 145, 130,
    ],
    ("rinna", (16, 25)): [
        125, 127, 119, 115, 102, 127, 117, 107, 127, 116, 151, 157, 146, 149, 110, 126, 142, 167, 120, 131,
        101, 145, 137, 116, 131,
    ],
    ("rinna", (23, 9)): [
        143, 99, 121, 96, 74, 149, 118, 103, 86, 103, 93, 123, 134, 140, 114, 154, 166, 170, 162, 132, 165,
        139, 111, 112, 141,
    ],
    ("open_clip shortest", (16, 25)): [
        124, 125, 119, 114, 95, 126, 113, 103, 128, 116, 153, 162, 147, 157, 109, 127, 141, 177, 112, 132,
        95, 149, 138, 111, 132,
    ],
    ("open_clip shortest", (23, 9)): [
        148, 99, 121, 99, 67, 152, 118, 103, 79, 102, 88, 128, 134, 144, 108, 155, 171, 174, 172, 131, 163,
        137, 107, 105, 140,
    ],
}  # fmt: skip


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def open_clip(folder: pathlib.Path, **fields: object) -> Preprocessing:
    text = {"hf_model_name": "xlm-roberta-large"}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": {"text_cfg": text}, "preprocess_cfg": fields}))
    return published_pixels.of_open_clip(folder, SIDE)


def ruclip(folder: pathlib.Path, **fields: object) -> Preprocessing:
    (folder / "config.json").write_text(json.dumps(fields))
    return published_pixels.of_ruclip(folder, SIDE)


def assert_fits(prepared: Preprocessing, name: str) -> None:
    for size in ((16, 25), (23, 9)):
        fitted = prepared.fit(picture(*size))
        assert fitted.shape == (SIDE, SIDE, 3)
        np.testing.assert_array_equal(fitted[..., 0].ravel(), GOLDEN[name, size], err_msg=f"{name} {size}")


def test_pictures_are_prepared_as_published(tmp_path: pathlib.Path):
    assert_fits(ruclip(tmp_path), "ruCLIP")
    assert_fits(published_pixels.of_cn_clip(tmp_path, SIDE), "cn_clip")
    assert_fits(published_pixels.of_rinna(tmp_path, SIDE), "rinna")
    assert_fits(open_clip(tmp_path), "open_clip shortest")
    # torchvision gave the same numbers for these two.
    assert_fits(open_clip(tmp_path, resize_mode="squash", interpolation="bicubic"), "cn_clip")
    assert_fits(open_clip(tmp_path, resize_mode="shortest", interpolation="bilinear", mode="RGB"), "rinna")


def test_colours_are_normalised_as_published(tmp_path: pathlib.Path):
    given = dict(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    for make in (open_clip, ruclip):
        assert (make(tmp_path).mean, make(tmp_path, mean=None).std) == (OPENAI_MEAN, OPENAI_STD)
        prepared = make(tmp_path, **given)
        image = picture(16, 25)
        expected = (prepared.fit(image) / 255 - np.array(given["mean"])) / np.array(given["std"])
        np.testing.assert_allclose(prepared.normalise(prepared.fit(image)[None])[0], expected, atol=2e-6)
    assert open_clip(tmp_path, mean=0.5, std=0.25) == open_clip(tmp_path, mean=[0.5] * 3, std=[0.25] * 3)
    for prepared in (published_pixels.of_cn_clip(tmp_path, SIDE), published_pixels.of_rinna(tmp_path, SIDE)):
        assert (prepared.mean, prepared.std, prepared.rescale) == (OPENAI_MEAN, OPENAI_STD, 1 / 255)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(resize_mode="longest"), "resize_mode: 'longest' is not supported"),
        (dict(interpolation="nearest"), "interpolation: 'nearest' is not supported"),
        (dict(mode="L"), "mode: 'L' is not supported"),
        (dict(mean=[0.5]), "must be three numbers"),
        (dict(std=[[], 1, 1]), "float"),
        (dict(std=["a", "b", "c"]), "could not convert"),
    ],
)
def test_what_open_clip_says_and_is_not_supported_is_named(tmp_path: pathlib.Path, fields: dict, said: str):
    with pytest.raises(PeaError, match=f"{CONFIG}: preprocess_cfg: .*{said}|{CONFIG}: {said}"):
        open_clip(tmp_path, **fields)


def test_wrong_colours_of_ruclip_are_named(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match="config.json: .* must be three numbers"):
        ruclip(tmp_path, mean=[1, 2])
