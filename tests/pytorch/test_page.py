"""The page, built offline from tiny models, draws what the pipeline draws."""

import json
import os
import pathlib
import socket
import sys
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pea_jax.errors import PeaError
from pea_jax.pytorch import page
from tests import language_clips as clips
from tests import tiny_sd15, tiny_sdxl
from tests.pytorch.test_adapter import save as save_adapter
from tests.tiny_text_models import random_bert

STEPS, SCALE, SEED = 2, 3.0, 5


@pytest.fixture
def adapter(tmp_path: pathlib.Path) -> pathlib.Path:
    """An adapter directory that names a whole pipeline as its base model."""
    base = tmp_path / "base"
    tiny_sdxl.save(base)
    kinds: dict[str, Any] = dict(
        unet=UNet2DConditionModel, vae=AutoencoderKL, scheduler=DPMSolverMultistepScheduler,
        text_encoder=CLIPTextModel, text_encoder_2=CLIPTextModelWithProjection,
        tokenizer=CLIPTokenizer, tokenizer_2=CLIPTokenizer,
    )  # fmt: skip
    parts = {name: kind.from_pretrained(base / name) for name, kind in kinds.items()}
    StableDiffusionXLPipeline(**parts).save_pretrained(base)
    size = clips.save_cased_tokenizer(tmp_path / "text")
    random_bert(**clips.SMALL, vocab_size=size).save_pretrained(tmp_path / "text")
    dims = dict(hidden_dim=8, pooled_dim=20, output_dim=40)
    save_adapter(tmp_path / "adapter", str(tmp_path / "text"), dims, context_length=12)
    path = tmp_path / "adapter" / "config.json"
    evaluation = dict(steps=STEPS, guidance_scale=SCALE)
    about = dict(base_model=str(base), language="ru", training=dict(picture_size=[24, 16], evaluation=evaluation))
    path.write_text(json.dumps(json.loads(path.read_text()) | about))
    return tmp_path / "adapter"


def test_page(adapter: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    drawing, config = page.load(str(adapter), None)
    drawing.pipe.set_progress_bar_config(disable=True)
    blocks = page.build(drawing, config["language"], config["training"]["evaluation"])
    assert not blocks.analytics_enabled
    labels = {component.label: component for component in blocks.blocks.values() if getattr(component, "label", None)}
    assert {"Prompt (ru)", "Negative prompt (ru)", "Steps", "Guidance scale", "Seed", "ru", "en"} <= labels.keys()
    assert (labels["Steps"].value, labels["Guidance scale"].value) == (STEPS, SCALE)
    functions = [function.fn for function in blocks.fns.values()]
    native, english = functions[0]("кот", "cat", "дождь", STEPS, SCALE, SEED)
    settings = dict(num_inference_steps=STEPS, guidance_scale=SCALE, width=24, height=16)
    conditioning = drawing.adapter.encode(drawing.pipe, "кот", "дождь")
    for picture, text in ((native, conditioning), (english, dict(prompt="cat"))):
        expected = drawing.pipe(**text, **settings, generator=torch.Generator().manual_seed(SEED)).images[0]
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    assert np.asarray(native).shape == (16, 24, 3) and np.any(np.asarray(native) != np.asarray(english))
    assert functions[0]("", "", "", 1, 1.0, 0) == (None, None)
    cleared, first = (functions[0]("кот", "", "", 1, 1.0, seed)[0] for seed in (None, 0))
    np.testing.assert_array_equal(np.asarray(cleared), np.asarray(first))
    assert len({function.concurrency_id for function in blocks.fns.values()}) == 1, "two could draw at once"


def test_stable_diffusion_15_as_it_comes_from_the_hub(tmp_path: pathlib.Path):
    """Its index names a safety checker, whose files are not downloaded."""
    tiny_sd15.save(tmp_path / "base")
    index = dict(
        _class_name="StableDiffusionPipeline", _diffusers_version="0.6.0",
        feature_extractor=["transformers", "CLIPImageProcessor"],
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        scheduler=["diffusers", "DPMSolverMultistepScheduler"], text_encoder=["transformers", "CLIPTextModel"],
        tokenizer=["transformers", "CLIPTokenizer"], unet=["diffusers", "UNet2DConditionModel"],
        vae=["diffusers", "AutoencoderKL"],
    )  # fmt: skip
    (tmp_path / "base" / "model_index.json").write_text(json.dumps(index))
    dims = dict(hidden_dim=8, pooled_dim=None, output_dim=16)
    save_adapter(tmp_path / "adapter", "assets/multilingual-e5-small", dims, context_length=12)
    drawing, _ = page.load(str(tmp_path / "adapter"), str(tmp_path / "base"))
    assert drawing.pipe.safety_checker is None and drawing.pipe.unet.config.cross_attention_dim == 16


def test_what_is_missing_is_said(adapter: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["page", "--adapter", str(adapter)])
    with pytest.raises(SystemExit, match="1"):
        page.main()
    assert capsys.readouterr().err == "error: the page takes a package: run `pip install 'pea_jax[gradio]'`\n"
    config = json.loads((adapter / "config.json").read_text())
    del config["base_model"]
    (adapter / "config.json").write_text(json.dumps(config))
    with pytest.raises(PeaError, match="names no base_model; give --base_model"):
        page.load(str(adapter), None)


def test_a_folder_of_somebody_else_is_one_line(adapter: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", ["page", "--adapter", str(adapter)])
    page._gradio()  # which looks into folders of its own
    adapter.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may look everywhere
    try:
        with pytest.raises(SystemExit, match="1"):
            page.main()
    finally:
        os.seteuid(user)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and said.endswith("/adapter.safetensors: Permission denied; name another place")


def test_a_base_model_that_cannot_be_drawn_with_is_one_line(adapter: pathlib.Path, tmp_path: pathlib.Path):
    tiny_sd15.save(tmp_path / "other")
    with pytest.raises(PeaError, match="other: diffusers cannot load it as a pipeline .*model_index.json") as error:
        page.load(str(adapter), str(tmp_path / "other"))
    assert "\n" not in str(error.value)
    dims = dict(hidden_dim=8, pooled_dim=None, output_dim=16)
    save_adapter(tmp_path / "adapter_15", str(tmp_path / "text"), dims, context_length=12)
    with pytest.raises(PeaError, match="takes embeddings 40 wide with a pooled one, this adapter gives 16 wide"):
        page.load(str(tmp_path / "adapter_15"), str(tmp_path / "base"))


def test_a_port_that_is_taken_is_one_line(adapter: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["page", "--adapter", str(adapter), "--port", str(port)])
        with pytest.raises(SystemExit, match="1"):
            page.main()
    said = f"error: --host 127.0.0.1 --port {port}: cannot be served there; name another port"
    assert capsys.readouterr().err.splitlines()[-1] == said
