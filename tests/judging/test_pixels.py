"""Preparing pictures, against the processors of transformers, from the files that these write."""

import json
import pathlib

import numpy as np
import pytest
import transformers
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging.pixels import Preprocessing

PROCESSORS = {
    "openai": dict(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
    "stretched": dict(size={"height": 20, "width": 28}, do_center_crop=False, image_mean=[0.5, 0.4, 0.3]),
    "crop only": dict(do_resize=False, crop_size={"height": 40, "width": 20}, image_std=[0.5, 0.5, 0.25]),
    "bilinear, raw": dict(
        size={"shortest_edge": 15}, crop_size={"height": 22, "width": 9}, resample=2, do_normalize=False
    ),
}  # fmt: skip


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, len(mode))).astype(np.uint8)
    return Image.fromarray(values.squeeze())


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("kind", ["CLIPImageProcessorPil", "ChineseCLIPImageProcessorPil"])
def test_equals_transformers(tmp_path: pathlib.Path, name: str, kind: str):
    processor = getattr(transformers, kind)(**PROCESSORS[name])
    processor.save_pretrained(tmp_path)
    ours = Preprocessing.from_folder(tmp_path)
    for size in ((24, 24), (31, 47), (50, 33), (640, 13)):
        for mode in ("RGB", "RGBA", "L"):
            image = picture(*size, mode)
            expected = processor(image, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
            actual = np.asarray(ours.normalise(ours.fit(image)[None]))
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, atol=2e-6, err_msg=f"{size} {mode}")


@pytest.mark.parametrize("size", [(1, 1500), (1501, 1), (2, 1501), (400, 3)])
def test_of_a_line_the_middle_alone_is_resized(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, size):
    """Of 65,535 pixels in a row the whole would be 10 GB at 224; what comes out is what transformers makes of all."""
    processor = transformers.CLIPImageProcessorPil(**PROCESSORS["openai"], do_normalize=False, do_rescale=False)
    processor.save_pretrained(tmp_path)
    expected = processor(image := picture(*size), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    resize, sizes = Image.Image.resize, []

    def noted(self, size, *rest):
        sizes.append(size)
        return resize(self, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", noted)
    np.testing.assert_array_equal(Preprocessing.from_folder(tmp_path).fit(image), expected)
    assert len(sizes) == 1 and max(sizes[0]) <= 51 * 24


@pytest.mark.parametrize(
    "fields",
    [
        dict(size=30, crop_size=24, feature_extractor_type="CLIPFeatureExtractor", do_convert_rgb=True),
        dict(size={"shortest_edge": 30}, crop_size=[24, 24], image_processor_type="CLIPImageProcessorFast"),
    ],
)
def test_old_and_new_spellings(tmp_path: pathlib.Path, fields: dict):
    wanted = Preprocessing(size=30, crop=(24, 24))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    assert Preprocessing.from_folder(tmp_path) == wanted
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": fields}))
    assert Preprocessing.from_folder(tmp_path) == wanted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"image_processor_type": "SiglipImageProcessor"}', "SiglipImageProcessor is not supported"),
        ('{"do_pad": true}', "do_pad=True is not supported"),
        ('{"size": {"longest_edge": 3}}', "not the preprocessing of a CLIP"),
        ('{"size": 0}', "size 0 must be one side or two"),
        ('{"size": 2.5}', "size 2.5 must be one side or two"),
        ('{"image_mean": [1]}', "must be three numbers"),
        ('{"resample": 77}', "77 is not a valid"),
        ("[1]", "must hold a JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: pathlib.Path, content: str, said: str):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(PeaError, match=f"preprocessor_config.json: .*{said}"):
        Preprocessing.from_folder(tmp_path)


def test_a_missing_file_is_named(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match="no preprocessor_config.json"):
        Preprocessing.from_folder(tmp_path)
