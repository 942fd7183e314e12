"""A published adapter brought in: the directory, and what it says."""

import json
import pathlib

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from pea_jax import adapter_folder, config
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.errors import PeaError
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.text.tokenizer import PADDING_RULE
from pea_jax.weights.adapter_layouts import read_config
from tests import commands
from tests.torch_oracle import randomised

E5_WIDTH = 384


class Oldest(torch.nn.Module):
    """`layernorm, fc1, fc2, fc3`, as the first published file."""

    def __init__(self):
        super().__init__()
        self.layernorm = torch.nn.LayerNorm(E5_WIDTH)
        self.fc1, self.fc2, self.fc3 = torch.nn.Linear(E5_WIDTH, 8), torch.nn.Linear(8, 20), torch.nn.Linear(20, 40)

    def forward(self, states):
        y = self.fc2(torch.nn.functional.gelu(self.fc1(self.layernorm(states))))
        return self.fc3(torch.nn.functional.gelu(y)), y.mean(1)


@pytest.fixture
def published(tmp_path: pathlib.Path) -> pathlib.Path:
    torch.save(randomised(Oldest()).state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path / "pytorch_model.bin"


def test_command(published: pathlib.Path, tmp_path: pathlib.Path):
    """With a configuration the directory is all that a prompt needs."""
    out = tmp_path / "adapter"
    flags = dict(from_torch=published, config="configs/ru.py:emoji", out=out)
    result = commands.run_forked(commands.command("export", {}, **flags))
    assert result.returncode == 0, result.stderr
    description = read_config(out)
    assert (description["language"], description["base_model"]) == ("ru", "assets/teacher")
    assert description["published_as"] == "pytorch_model.bin" and description["dimensions"]["hidden_dim"] == 8
    conditioner = AdapterConditioner.from_pretrained(out)
    known = conditioner.text_encoder.describe()
    assert {name: description["text_encoder"][name] for name in PADDING_RULE} == {
        name: known[name] for name in PADDING_RULE
    }
    conditioning = conditioner.encode(["красное яблоко"])
    states, _ = conditioner.text_encoder.encode(["красное яблоко"])
    with torch.no_grad():
        tokens, pooled = randomised(Oldest())(torch.from_numpy(np.array(states)))
    np.testing.assert_allclose(conditioning.prompt_embeds, tokens, atol=1e-4)
    np.testing.assert_allclose(conditioning.pooled_prompt_embeds, pooled, atol=1e-4)
    assert "assets/multilingual-e5-small" in (out / "README.md").read_text()


def test_without_a_configuration_it_is_the_adapter_alone(published: pathlib.Path, tmp_path: pathlib.Path):
    adapter = PEAdapter.from_published(published)
    adapter_folder.save_published(tmp_path / "adapter", adapter, published.name, None)
    again = PEAdapter.from_pretrained(tmp_path / "adapter")
    states = np.ones((1, 3, E5_WIDTH), np.float32)
    jax.tree.map(np.testing.assert_array_equal, again(states), adapter(states))
    assert "not stated" in (tmp_path / "adapter" / "README.md").read_text()
    with pytest.raises(PeaError, match="config.json: does not name its text_encoder"):
        AdapterConditioner.from_pretrained(tmp_path / "adapter")


def test_what_a_configuration_adds(published: pathlib.Path, tmp_path: pathlib.Path):
    """Two encoders by name, and the size of the pictures; the encoders need not be there."""
    chosen = config.sd15("zh", "laion/A + OFA-Sys/B", context_length=64)
    adapter_folder.save_published(tmp_path / "a", PEAdapter.from_published(published), "x.bin", chosen)
    description = json.loads((tmp_path / "a" / "config.json").read_text())
    assert description["text_encoder"]["id"] == "laion/A + OFA-Sys/B"
    assert description["text_encoder"]["context_length"] == 64
    assert description["training"]["picture_size"] == [512, 512]


def test_an_encoder_that_is_not_there_may_pad_as_it_likes(published: pathlib.Path, tmp_path: pathlib.Path):
    fields = {"text_encoder.id": tmp_path / "nowhere"}
    flags = dict(from_torch=published, config="configs/ru.py:emoji", out=tmp_path / "adapter")
    result = commands.run_forked(commands.command("export", fields, **flags))
    assert result.returncode == 0, result.stderr
    assert "does not say how the text encoder pads" in " ".join(result.stdout.split())
    encoder = read_config(tmp_path / "adapter")["text_encoder"]
    assert encoder["id"] == str(tmp_path / "nowhere") and not set(PADDING_RULE) & set(encoder)


def test_bad_input_is_one_line(tmp_path: pathlib.Path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "x.bin")
    arguments = commands.command("export", {}, from_torch=tmp_path / "x.bin", out=tmp_path / "out")
    result = commands.run_forked(arguments)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == 1 and len(errors) == 1 and "x.bin: not an adapter" in errors[0], result.stderr
    assert not list(tmp_path.glob("out*"))


def test_a_sheet_of_samples_is_looked_for_before_anything_is_written(published: pathlib.Path, tmp_path: pathlib.Path):
    flags = dict(out=tmp_path / "out", push_to_hub="me/adapter", dry_run=True, samples=tmp_path / "none.png")
    result = commands.run_forked(commands.command("export", {}, from_torch=published, **flags))
    said = f"error: {tmp_path / 'none.png'}: not a PNG file; name one with --samples"
    assert result.returncode == 1 and result.stderr.splitlines()[-1] == said, result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", [dict(samples="a.png"), dict(private=True), dict(dry_run=True)])
def test_what_is_of_the_hub_alone_is_refused_without_it(published: pathlib.Path, tmp_path: pathlib.Path, flag):
    result = commands.run_forked(commands.command("export", {}, from_torch=published, out=tmp_path / "out", **flag))
    said = f"error: --{next(iter(flag))}: is of what goes to the Hugging Face Hub; give --push_to_hub USER/NAME as well"
    assert result.returncode == 1 and result.stderr.splitlines()[-1] == said, result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (dict(workdir="run", config="configs/ru.py:emoji"), "error: --config: is of --from_torch; a run in --workdir"),
        (dict(from_torch="x.bin", step=7), "error: --step: is of --workdir; a published adapter has no checkpoints"),
    ],
)
def test_what_is_of_the_other_source_is_refused(tmp_path: pathlib.Path, flags: dict[str, object], said: str):
    result = commands.run_forked(commands.command("export", {}, out=tmp_path / "out", **flags))
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith(said), result.stderr


def test_the_folder_that_one_stands_in_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    adapter = PEAdapter(AdapterDims(3, 4, None, 5), rngs=nnx.Rngs(0))
    with pytest.raises(PeaError, match="cannot be replaced by an adapter; name a directory in it, e.g. adapter"):
        adapter.save_pretrained(".", {}, "")
    assert not list(tmp_path.iterdir())
