"""Texts and pictures as vectors: against transformers on folders that it wrote, against the networks of other files."""

import json
import pathlib

import numpy as np
import pytest
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.judging.clip import CLIP, FAMILIES
from pea_jax.text.architectures import architecture_of
from pea_jax.text.encoders import load_text_encoder
from pea_jax.weights import open_clip
from tests.judging import clips, published_clips
from tests.tiny_text_models import assert_close
from tests.torch_oracle import nchw

TEXTS = ["a red apple", "", "cat " * 40]


@pytest.mark.parametrize("kind", clips.KINDS)
def test_scores_are_those_of_transformers(tmp_path: pathlib.Path, kind: str):
    reference, pictures = clips.save_clip(tmp_path, kind), clips.pictures(3)
    clip = CLIP.from_pretrained(tmp_path)
    tokens = load_text_encoder(tmp_path).tokenize(TEXTS)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = reference(
            **{name: torch.from_numpy(array).long() for name, array in tokens.items()},
            pixel_values=torch.from_numpy(processor(pictures, return_tensors="np")["pixel_values"]),
        )
    texts, images = clip.text_embeds(TEXTS), clip.image_embeds(pictures)
    np.testing.assert_allclose(texts, expected.text_embeds, atol=1e-5)
    np.testing.assert_allclose(images, expected.image_embeds, atol=1e-5)
    np.testing.assert_allclose(clip.logit_scale * texts @ images.T, expected.logits_per_text, atol=1e-4)


@pytest.mark.parametrize("kind", published_clips.KINDS)
def test_files_of_other_libraries(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    """Their pictures, prepared: that this is as published is asked in test_published_pixels.py."""
    monkeypatch.setitem(
        open_clip.NETWORKS, "xlm-roberta-large", published_clips.TINY_XLM_R | {"model_type": "xlm-roberta"}
    )
    oracle, pictures = published_clips.save(tmp_path, kind), clips.pictures(3)
    clip = CLIP.from_pretrained(tmp_path)
    tokens = load_text_encoder(tmp_path).tokenize(TEXTS)
    prepared = FAMILIES[architecture_of(tmp_path)].preprocessing(tmp_path, published_clips.SIDE)
    pixels = prepared.normalise(np.stack([prepared.fit(picture) for picture in pictures]))
    with torch.no_grad():
        texts = oracle.text_embeds(*(torch.from_numpy(tokens[name]).long() for name in ("input_ids", "attention_mask")))
        images = oracle.image_embeds(nchw(np.asarray(pixels)))
    assert_close(clip.text_embeds(TEXTS), torch.nn.functional.normalize(texts))
    assert_close(clip.image_embeds(pictures), torch.nn.functional.normalize(images))
    assert clip.logit_scale == pytest.approx(oracle.logit_scale, rel=1e-6)


def test_pictures_are_encoded_in_any_number(tmp_path: pathlib.Path):
    clips.save_clip(tmp_path)
    clip, pictures = CLIP.from_pretrained(tmp_path), clips.pictures(70)
    some = clip.image_embeds(pictures)
    assert some.shape == (70, 20)
    np.testing.assert_allclose(some[65:], clip.image_embeds(pictures[65:]), atol=1e-6)
    assert len(clip.image_embeds([])) == 0


def test_what_is_missing_or_wrong_is_named(tmp_path: pathlib.Path):
    clips.save_clip(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())

    def refused(**changes) -> str:
        path.write_text(json.dumps(config | changes))
        with pytest.raises(PeaError) as error:
            CLIP.from_pretrained(tmp_path)
        return str(error.value)

    assert "XLMRobertaModel cannot judge" in refused(architectures=["XLMRobertaModel"])
    assert "no vision_config" in refused(vision_config=None)
    said = refused(vision_config=config["vision_config"] | {"model_type": "dinov2", "window": 3})
    assert "config.json: " in said and "model_type='dinov2'" in said and "'window' is not known" in said
    assert "projection.weight is [20, 24], must be [21, 24]" in refused(projection_dim=21)
    path.write_text(json.dumps(config))
    (tmp_path / "processor_config.json").unlink(missing_ok=True)
    (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
    with pytest.raises(PeaError, match="no preprocessor_config.json"):
        CLIP.from_pretrained(tmp_path)


def test_projections_of_another_model_are_refused(tmp_path: pathlib.Path):
    published_clips.save(tmp_path, "cn_clip")
    (path,) = tmp_path.glob("*.pt")
    content = torch.load(path)
    for shape in ((128, 21), (127, 20)):
        torch.save({"state_dict": content["state_dict"] | {"module.text_projection": torch.zeros(shape)}}, path)
        with pytest.raises(PeaError, match="do not lead from the texts' 128 numbers to the pictures' 20"):
            CLIP.from_pretrained(tmp_path)
