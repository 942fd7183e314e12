"""The languages' configurations: every preset, what their docstrings promise, and a new language in a few lines."""

import functools
import json
import pathlib
import re
import runpy
import shlex

import pytest

from pea_jax import config
from pea_jax.distill.judging import read_concepts
from pea_jax.distill.training_set import look_at, training_set
from pea_jax.errors import PeaError
from pea_jax.weights.locations import SEPARATOR
from tests import commands

CONFIGS = sorted((commands.ROOT / "configs").glob("*.py"))
PRESETS = {path.stem: ["sdxl", "sd15", "emoji"] for path in CONFIGS}
PRESETS["zh"] += ["mul_clip", "mt5", "alt_clip", "mul_clip+chinese_clip"]
TURKISH = '''"""Turkish, `configs/tr.py:emoji` alone."""

from pea_jax import config


def get_config(preset: str = "emoji"):
    return config.choose(preset, {"emoji": lambda: config.emoji("tr")})
'''


def get_config(path: pathlib.Path, *preset: str) -> config.ConfigDict:
    return runpy.run_path(str(path))["get_config"](*preset)


def test_the_languages_are_there():
    assert {path.stem for path in CONFIGS} == {"ru", "zh", "ja", "ko", "it"}


@pytest.mark.parametrize(("language", "preset"), [(name, preset) for name in PRESETS for preset in PRESETS[name]])
def test_preset(language: str, preset: str):
    chosen = get_config(commands.ROOT / "configs" / f"{language}.py", preset)
    assert chosen.language == language
    assert chosen.keys() == config.base(language).keys()
    assert set(chosen.text_encoder) == set(config.base(language).text_encoder)
    assert chosen.base_model and chosen.text_encoder.id
    is_small = preset == "emoji"
    assert chosen.base_model.startswith("assets/") == chosen.text_encoder.id.startswith("assets/") == is_small
    assert ("stable-diffusion-v1-5" in chosen.base_model) == (preset == "sd15")
    assert json.loads(chosen.to_json())["text_encoder"]["hidden_state"] is None
    many = chosen.text_encoder.id.split(SEPARATOR)
    assert len(many) == (2 if "+" in preset else 1) and all(name == name.strip() for name in many)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_default_is_sdxl(path: pathlib.Path):
    assert get_config(path).to_dict() == get_config(path, "sdxl").to_dict()


def test_the_published_recipe():
    """PEA-Diffusion, train_sdxl_zh.sh: batch 240, learning rate 1e-5 to 5e-8, terms 1 : 1 : 0.1, noise offset 0.5."""
    chosen = get_config(commands.ROOT / "configs" / "zh.py")
    assert (chosen.batch_size, chosen.noise_offset, chosen.condition_dropout) == (240, 0.5, 0.1)
    assert dict(chosen.loss) == dict(noise=1.0, output=1.0, features=0.1, conditioning=0.0, contrast=0.0, hybrid=True)
    optimizer = chosen.optimizer
    assert (optimizer.learning_rate, optimizer.end_learning_rate, optimizer.warmup_steps) == (1e-5, 5e-8, 100)
    assert (chosen.text_encoder.context_length, chosen.adapter.hidden_dim) == (64, 1024)
    assert len(chosen.data.buckets) == 9 and all(w % 64 == h % 64 == 0 for w, h in chosen.data.buckets)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_docstring_says_what_to_do(path: pathlib.Path):
    """Each preset, a source, what to download, and commands whose configuration and fields exist."""
    text = runpy.run_path(str(path))["__doc__"]
    assert "arXiv" in text and "GPU-hours" in text and "hf download " in text
    assert all(f":{preset}`" in text or f"`{preset}`" in text for preset in PRESETS[path.stem])
    given = re.findall(r"^    (python -m pea_jax\..*)$", text, re.M)
    assert len(given) == 2
    for words in map(shlex.split, given):
        name, _, preset = words[words.index("--config") + 1].partition(":")
        chosen = get_config(commands.ROOT / name, *([preset] if preset else []))
        for field in (word[len("--config.") :].partition("=")[0] for word in words if word.startswith("--config.")):
            functools.reduce(getattr, field.split("."), chosen)
    downloads = re.findall(r"^    hf download (.*)$", text, re.M)
    for preset in set(PRESETS[path.stem]) - {"emoji"}:
        chosen = get_config(path, preset)
        for name in (chosen.base_model, *chosen.text_encoder.id.split(SEPARATOR)):
            assert any(name in line.split() for line in downloads), f"{preset}: {name}"
        assert f"atches of {chosen.batch_size}" in " ".join(text.split())


def test_unknown_preset_names_those_that_exist():
    with pytest.raises(PeaError, match="preset 'sd3': not known; choose from emoji, sd15, sdxl"):
        get_config(commands.ROOT / "configs" / "ru.py", "sd3")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_passes(name: str):
    for preset in PRESETS[name]:
        config.check(get_config(commands.ROOT / "configs" / f"{name}.py", preset))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("num_step", "config.num_step: there is no such field; did you mean config.num_steps?"),
        ("data.caption_variant", "did you mean config.data.caption_variants?"),
        ("loss.feature", "did you mean config.loss.features?"),
        ("optimizer.learning_rat", "did you mean config.optimizer.learning_rate?"),
        ("zzz", "config.zzz: there is no such field$"),
    ],
)
def test_a_config_file_that_misspells_a_field(field: str, message: str):
    chosen = config.emoji("ru")
    *groups, name = field.split(".")
    setattr(functools.reduce(getattr, groups, chosen), name, 1)
    with pytest.raises(PeaError, match=message.replace("?", "[?]")):
        config.check(chosen)


def test_a_config_file_that_loses_a_field():
    chosen = config.emoji("ru")
    chosen.sample = dict(every=1, count=2)
    with pytest.raises(PeaError, match="config.sample.guidance_scale: is not there"):
        config.check(chosen)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer.learning_rate", float("nan"), "must be a finite number"),
        ("loss.noise", float("inf"), "must be a finite number"),
        ("data.buckets", 64, "each must be (width, height)"),
        ("data.buckets", ((64,),), "each must be (width, height)"),
        ("data.buckets", (("a", "b"),), "each must be (width, height)"),
        ("data.buckets", ((64, 64), (64, 32), (64, 64)), "each must be there once"),
        ("data.bucket_weights", (float("nan"),), "must be finite numbers"),
        ("picture_size", (64, 64, 64), "must be (width, height)"),
        ("picture_size", 64, "must be (width, height)"),
        ("data.timeout", 0.0, "must be at least 1"),  # else the first batch is late
        ("seed", 10**20, f"must be at most {2**31 - 1}"),
        ("sample.seed", 2**33, f"must be at most {2**32 - 1}"),
        ("sample.steps", 5000, "must be at most 999"),
        ("ema_decay", 1.0, "must be less than 1"),
        ("optimizer.b2", 1.5, "must be less than 1"),
        ("num_microbatches", 5, "must divide config.batch_size=32"),
        ("sample.count", 2.5, "must be a whole number"),
        ("sample.guidance_scale", "high", "must be a finite number"),
        ("data.cache_dir", "gs://bucket/cache", "must be a folder on a disk"),
        ("data.cache_dir", "~/cache", "~ is not read here"),
    ],
)
def test_values_that_no_run_can_have(field: str, value: object, message: str):
    chosen = config.emoji("ru")
    *groups, name = field.split(".")
    with functools.reduce(getattr, groups, chosen).ignore_type() as group:
        group[name] = value
    with pytest.raises(PeaError, match=re.escape(f"config.{field}={value!r}: {message}")):
        config.check(chosen)


@pytest.mark.parametrize(("name", "read"), [("train", training_set), ("train", look_at), ("validation", read_concepts)])
def test_data_that_is_not_given(name: str, read):
    chosen = config.emoji("ru")
    chosen.data[name] = ""
    with pytest.raises(PeaError, match=rf"config\.data\.{name}: no data given"):
        read(chosen)


def test_a_new_language_is_one_file(world, tmp_path: pathlib.Path):
    """Written, trained for a few steps on the tiny base model, exported."""
    (tmp_path / "tr.py").write_text(TURKISH)
    fields = {name: value for name, value in world[1].items() if name != "text_encoder.id"}  # the language's own
    arguments = commands.command("train", fields, config=f"{tmp_path / 'tr.py'}:emoji", workdir=tmp_path / "run")
    result = commands.run_forked(arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13)) and lines[-1]["features"] > 0
    description = json.loads((tmp_path / "run" / "adapter" / "config.json").read_text())
    assert description["language"] == "tr" and description["text_encoder"]["id"] == "assets/multilingual-e5-small"
