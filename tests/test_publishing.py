"""What `export --push_to_hub` sends, to a Hub that only listens."""

import json
import pathlib
import shutil
import types
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from flax import nnx
from PIL import Image

from pea_jax import adapter_folder, config, publishing
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.errors import PeaError

DESCRIPTION = dict(id="intfloat/encoder", context_length=24, pad_token="<pad>")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """An adapter directory of a training on shards of this machine, with a sheet of samples."""
    settings = config.sdxl("ru", "intfloat/encoder")
    settings.data.more_languages = "en ru uk"
    settings.data.train = "somewhere/private/ru-{00000..00009}.tar more/b.tar"
    adapter = PEAdapter(AdapterDims(input_dim=4, hidden_dim=5, pooled_dim=6, output_dim=7), rngs=nnx.Rngs(0))
    encoder = types.SimpleNamespace(describe=lambda: dict(DESCRIPTION))
    adapter_folder.save(tmp_path / "adapter", settings, adapter, encoder, 9, "openrail++")  # type: ignore[arg-type]
    (tmp_path / "samples").mkdir()
    for step in (0, 9, 10):
        Image.fromarray(np.full((4, 4, 3), step, np.uint8)).save(tmp_path / "samples" / f"step_{step}.png")
    shutil.copy(tmp_path / "samples" / "step_9.png", tmp_path / "samples" / "step_9 (copy).png")
    samples = publishing.samples_at(tmp_path, 9)
    assert samples is not None
    publishing.add_samples(tmp_path / "adapter", samples, "what it draws")
    return tmp_path / "adapter"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The calls that a stand-in of the Hub got."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Listening:
        def create_repo(self, repo_id: str, **options: Any) -> None:
            calls.append(("create_repo", dict(repo_id=repo_id, **options)))

        def upload_folder(self, **options: Any) -> str:
            calls.append(("upload_folder", options))
            return "https://the.hub/commit"

    monkeypatch.setattr(huggingface_hub, "HfApi", Listening)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    return calls


def test_all_of_it_goes(folder: pathlib.Path, sent: list, capsys: pytest.CaptureFixture):
    publishing.publish(folder, "me/ru-sdxl", private=True)
    (created, options), (uploaded, what) = sent
    assert (created, options) == ("create_repo", dict(repo_id="me/ru-sdxl", private=True, exist_ok=True))
    assert uploaded == "upload_folder" and what["repo_id"] == "me/ru-sdxl" and what["folder_path"] == folder
    printed = capsys.readouterr().out
    for name in ("README.md", "adapter.safetensors", "config.json", "samples.png"):
        assert (folder / name).is_file() and f"  {name}  " in printed
    assert "huggingface.co/me/ru-sdxl (private)" in printed and "https://the.hub/commit" in printed


def test_norwegian_is_no_truth_value():
    for language in ("no", 'a "b"', "\\u", "язык"):
        text = adapter_folder.front_matter({"language": language})
        assert yaml.safe_load(text.split("---")[1])["language"] == [language]


def test_the_card_says_what_it_is(folder: pathlib.Path):
    card = (folder / "README.md").read_text()
    _, front_matter, body = card.split("---\n", 2)
    stated = yaml.safe_load(front_matter)
    assert stated == dict(
        library_name="pea_jax",
        pipeline_tag="text-to-image",
        license="openrail++",
        base_model="stabilityai/stable-diffusion-xl-base-1.0",
        base_model_relation="adapter",
        language=["ru", "en", "uk"],
        tags=["text-to-image", "pea-diffusion"],
    )
    for line in (
        "| text encoder | `intfloat/encoder` |",
        "| base model | `stabilityai/stable-diffusion-xl-base-1.0` |",
        "| training data | `ru-{00000..00009}.tar`, `b.tar` |",
        "| language | ru, en, uk |",
        "| licence | openrail++ |",
        "pip install -e '.[hub]'",
        'Pipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float32)',
        "![what it draws](samples.png)",
    ):
        assert line in body
    assert "private" not in card
    assert np.asarray(Image.open(folder / "samples.png")).max() == 9  # not the last one


def test_a_base_model_in_one_file_is_loaded_as_one(folder: pathlib.Path):
    description = json.loads((folder / "config.json").read_text())
    description["base_model"] = 'my "tuned".safetensors'
    description["training"]["base_model_config"] = "stabilityai/stable-diffusion-xl-base-1.0"
    loading = (
        r'from_single_file("my \"tuned\".safetensors", config="stabilityai/stable-diffusion-xl-base-1.0", '
        "torch_dtype=torch.float32)"
    )
    card = adapter_folder.card(description, 1)
    assert f"pipe = StableDiffusionXLPipeline.{loading}\n" in card and "Pipeline.from_pretrained" not in card


@pytest.mark.parametrize(("step", "expected"), [(0, "step_0"), (8, "step_0"), (9, "step_9"), (11, "step_10")])
def test_the_samples_are_those_of_the_step_or_the_last_before(folder, step: int, expected: str):
    found = publishing.samples_at(folder.parent, step)
    assert found is not None and found.stem == expected
    assert publishing.samples_at(folder, step) is None


def test_a_dry_run_sends_nothing(folder, sent, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    description = json.loads((folder / "config.json").read_text())
    description["base_model"] = "assets/teacher"
    (folder / "config.json").write_text(json.dumps(description))
    publishing.publish(folder, "me/ru-sdxl", dry_run=True)
    printed = capsys.readouterr().out
    assert not sent and "would go to huggingface.co/me/ru-sdxl (public)" in printed
    assert "assets/teacher is on this machine" in printed


def test_a_licence_that_nobody_named_is_not_made_up(folder: pathlib.Path):
    description = json.loads((folder / "config.json").read_text())
    del description["license"]
    card = adapter_folder.card(description, 1)
    assert "license" not in card and "| licence | not stated |" in card


def test_what_is_wrong_is_one_line(folder, sent, monkeypatch):
    with pytest.raises(PeaError, match="--push_to_hub nobody: must be USER/NAME"):
        publishing.check("nobody", dry_run=True)
    for wrong in ("Apache 2.0", "mit\nbase_model: x", ""):
        with pytest.raises(PeaError, match="must be as the Hugging Face Hub names it, e.g. apache-2.0"):
            publishing.check_license(wrong)
    with pytest.raises(PeaError, match="not a PNG file; name one with --samples"):
        publishing.add_samples(folder, folder / "config.json", "")

    def refused(*_: Any, **__: Any) -> None:
        raise ConnectionError("403 Forbidden\nyou may not")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refused)
    with pytest.raises(PeaError, match="ConnectionError: 403 Forbidden you may not.*hf upload me/x") as error:
        publishing.publish(folder, "me/x")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PeaError, match="no token of the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN"):
        publishing.check("me/x", dry_run=False)
