import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file

from benchmarks.published import PublishedAdapter
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.errors import PeaError
from pea_jax.weights.adapter_layouts import read_config
from pea_jax.weights.torch_names import to_torch_names
from tests import commands

DIMS = AdapterDims(input_dim=24, hidden_dim=40, pooled_dim=32, output_dim=48)


def random_adapter(dims: AdapterDims = DIMS, seed: int = 0) -> PEAdapter:
    """All parameters random, the normalisation's too."""
    adapter = PEAdapter(dims, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    for layer in (adapter.layernorm.scale, adapter.layernorm.bias, adapter.fc.bias):
        layer[...] = jnp.asarray(rng.normal(size=layer.shape), jnp.float32)
    return adapter


def test_published_class_loads_the_file_strictly_and_agrees(tmp_path):
    adapter = random_adapter()
    adapter.save_pretrained(tmp_path / "adapter", {}, "")
    published = PublishedAdapter(24, 40, 32, 48)
    published.load_state_dict(load_torch_file(tmp_path / "adapter" / "adapter.safetensors"), strict=True)
    states = np.random.default_rng(1).normal(size=(3, 7, 24)).astype(np.float32)
    tokens, pooled = adapter(jnp.asarray(states))
    with torch.no_grad():
        expected_pooled, expected_tokens = published(torch.from_numpy(states))
    np.testing.assert_allclose(tokens, expected_tokens, atol=1e-5)
    np.testing.assert_allclose(pooled, expected_pooled, atol=1e-5)


def test_sdxl_size_is_that_of_the_paper():
    adapter = nnx.eval_shape(lambda: PEAdapter(AdapterDims(1024, 1024, 1280, 2048), rngs=nnx.Rngs(0)))
    assert sum(variable.size for _, variable in nnx.to_flat_state(nnx.state(adapter, nnx.Param))) == 6_033_408


@pytest.mark.parametrize(("num_layers", "hidden_dim"), [(1, 32), (2, 40), (3, 40), (4, 40)])
def test_round_trip_is_bit_equal(tmp_path, num_layers, hidden_dim):
    """With one linear alone nothing is hidden, and what is read has the width of its output there."""
    adapter = random_adapter(AdapterDims(24, hidden_dim, 32, 48, num_layers))
    adapter.save_pretrained(tmp_path / "a", {"system": "pea"}, "a card")
    again = PEAdapter.from_pretrained(tmp_path / "a")
    assert again.dims == adapter.dims
    for name, value in to_torch_names(adapter).items():
        np.testing.assert_array_equal(value, to_torch_names(again)[name])
    assert read_config(tmp_path / "a") == {"system": "pea"}
    assert (tmp_path / "a" / "README.md").read_text() == "a card"


def test_a_work_directory_is_no_adapter(tmp_path):
    random_adapter(AdapterDims(4, 5, 6, 7)).save_pretrained(tmp_path / "run" / "adapter", {"system": "pea"}, "a card")
    (tmp_path / "run" / "config.json").write_text("{}")
    for read in (PEAdapter.from_pretrained, read_config):
        with pytest.raises(PeaError, match="run: is no adapter but has one in it; name .*run/adapter$"):
            read(tmp_path / "run")


# Run where text files are ASCII by default, as they are ISO-8859-1 with LANG=en_US.
SAVE = """
from flax import nnx
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.publishing import add_samples
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
adapter = PEAdapter(AdapterDims(4, 4, 4, 4), rngs=nnx.Rngs(0))
prefix = "\\u0437\\u0430\\u043f\\u0440\\u043e\\u0441: "
adapter.save_pretrained(folder, {"text_encoder": {"prefix": prefix}}, "\\u00ab-\\u00bb")
picture = folder.with_name("a.png")
picture.write_bytes(b"\\x89PNG")
add_samples(folder, picture, "-")
"""


def test_files_are_the_same_under_every_locale(tmp_path):
    ascii_alone = dict(os.environ, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    subprocess.run([sys.executable, "-c", SAVE, tmp_path / "a"], env=ascii_alone, cwd=commands.ROOT, check=True)
    assert json.loads((tmp_path / "a" / "config.json").read_bytes())["text_encoder"]["prefix"] == "запрос: "
    read = "from pea_jax.weights.adapter_layouts import read_config; print(ascii(read_config('a')))"
    environment = dict(ascii_alone, PYTHONPATH=str(commands.ROOT))
    said = subprocess.check_output([sys.executable, "-c", read], env=environment, cwd=tmp_path, text=True)
    assert said.strip() == ascii({"text_encoder": {"prefix": "запрос: "}})
    assert (tmp_path / "a" / "README.md").read_text("utf-8").startswith("«-»")


def test_linear_start_is_linear_in_standardised_features():
    states = jnp.asarray(5 + np.random.default_rng(0).normal(size=(50, 7, 24)) * np.linspace(0.1, 2, 24), jnp.float32)
    adapter = random_adapter()
    adapter.start_linear(states, jax.random.key(0))
    features = adapter.layernorm(states).reshape(-1, 24)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-4)
    project = lambda x: functools.reduce(lambda y, layer: layer(y), adapter.projector, x)  # noqa: E731
    a, b = features[:3], features[3:6]
    assert project(a).std() > 0.05
    np.testing.assert_allclose(project(a + 2 * b), project(a) + 2 * project(b), atol=1e-5)


def test_linear_start_needs_pairs_of_hidden_units():
    adapter = random_adapter(AdapterDims(24, 41, 32, 48))
    with pytest.raises(PeaError, match="hidden_dim=41 must be even"):
        adapter.start_linear(jnp.ones((2, 3, 24)), jax.random.key(0))


def test_saving_again_replaces_the_whole_directory(tmp_path):
    random_adapter().save_pretrained(tmp_path / "a", {}, "")
    (tmp_path / "a" / "samples.png").touch()
    random_adapter(seed=1).save_pretrained(tmp_path / "a", {}, "")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.md", "a", "adapter.safetensors", "config.json"]


def test_where_a_link_leads_is_replaced(tmp_path):
    (tmp_path / "a").symlink_to("b")
    for card in ("first", "second"):
        random_adapter().save_pretrained(tmp_path / "a", {}, card)
        assert (tmp_path / "a").is_symlink() and (tmp_path / "b" / "README.md").read_text() == card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


class Killed(BaseException):
    pass


def while_alive(calls, call, *args, **kwargs):
    if next(calls, None) is None:
        raise Killed
    return call(*args, **kwargs)


def test_saving_again_goes_well_wherever_the_last_time_was_killed(tmp_path, monkeypatch):
    """Killed before each of the calls that make, remove or rename something."""
    adapter = random_adapter()
    adapter.save_pretrained(tmp_path / "a", {}, "first")
    for lived in itertools.count():
        calls = iter(range(lived))
        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            for name in ("mkdir", "rename", "rmdir", "unlink"):
                patched.setattr(os, name, functools.partial(while_alive, calls, getattr(os, name)))
            adapter.save_pretrained(tmp_path / "a", {}, "killed")
            break
        adapter.save_pretrained(tmp_path / "a", {}, "again")
        assert (tmp_path / "a" / "README.md").read_text() == "again"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert lived > 5


@pytest.mark.parametrize("name", [".git", "notes.txt"])
def test_what_is_not_of_an_adapter_is_never_deleted(tmp_path, name):
    random_adapter().save_pretrained(tmp_path / "a", {}, "old")
    (tmp_path / "a" / name).touch()
    with pytest.raises(PeaError, match=rf"holds more than an adapter \({name}\)"):
        random_adapter(seed=1).save_pretrained(tmp_path / "a", {}, "new")
    assert (tmp_path / "a" / name).exists() and (tmp_path / "a" / "README.md").read_text() == "old"


def test_whoever_may_read_the_card_may_read_the_weights(tmp_path):
    random_adapter().save_pretrained(tmp_path / "a", {}, "")
    assert len({path.stat().st_mode for path in (tmp_path / "a").iterdir()}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc.bias"), "missing.*fc.bias"),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), "unexpected.*extra"),
        (lambda t: t.update({"fc.bias": np.zeros(3, np.float32)}), "fc.bias is .3., must be .48."),
        (lambda t: t.pop("fc.weight"), "not an adapter"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, message):
    random_adapter().save_pretrained(tmp_path / "a", {}, "")
    tensors = load_file(tmp_path / "a" / "adapter.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "a" / "adapter.safetensors")
    with pytest.raises(PeaError, match=message):
        PEAdapter.from_pretrained(tmp_path / "a")


def test_truncated_file_and_missing_config_are_named(tmp_path):
    random_adapter().save_pretrained(tmp_path / "a", {}, "")
    weights = tmp_path / "a" / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(PeaError, match=r"adapter\.safetensors: not a complete safetensors file"):
        PEAdapter.from_pretrained(tmp_path / "a")
    with pytest.raises(PeaError, match=r"config\.json: no such file"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(PeaError, match="must be a JSON object"):
        read_config(tmp_path)
