"""The command, with an adapter for Stable Diffusion 1.5 and its base model as folder and as one file."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import save_file

from pea_jax import adapter_folder, config, mesh
from pea_jax.data import open_source
from pea_jax.distill import models
from pea_jax.sampling.guides import Guides
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.text.stable_diffusion import load_conditioner
from tests import commands, tiny_sd15
from tests import language_clips as clips
from tests.test_processes import start_two
from tests.tiny_text_models import random_bert

PROMPT, SIZE = "красное яблоко", 8


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> ConfigDict:
    folder = tmp_path_factory.mktemp("sd15")
    tiny_sd15.save(folder / "base")
    tiny_sd15.save_in_one_file(folder / "base", folder / "tuned.safetensors")
    size = clips.save_cased_tokenizer(folder / "text")
    random_bert(**clips.SMALL, vocab_size=size).save_pretrained(folder / "text")
    settings = config.sd15("ru", str(folder / "text"), context_length=12, hidden_dim=20)
    settings.base_model, settings.base_model_config = str(folder / "tuned.safetensors"), str(folder / "base")
    settings.dtype, settings.picture_size, settings.evaluation.steps = "float32", (SIZE, SIZE), 2
    return settings


@pytest.fixture(scope="module")
def adapter(settings: ConfigDict, tmp_path_factory) -> pathlib.Path:
    path, frozen = tmp_path_factory.mktemp("adapter"), models.load_models(settings, mesh.make_mesh())
    adapter_folder.save(path, settings, models.new_adapter(settings, frozen), frozen.student, step=1)
    return path


def generate(adapter: pathlib.Path | None, *arguments: str, **flags: object) -> None:
    flags |= dict(adapter=adapter) if adapter else {}
    result = commands.run_forked([*commands.command("generate", {}, **flags), *arguments])
    assert result.returncode == 0, result.stderr


def read(path: pathlib.Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture(scope="module")
def one(adapter: pathlib.Path, tmp_path_factory) -> np.ndarray:
    """`PROMPT` from the first noise of seed 5."""
    path = tmp_path_factory.mktemp("one") / "one.png"
    generate(adapter, prompt=PROMPT, seed=5, out=path)
    return read(path)


def test_as_the_adapter_was_trained(settings: ConfigDict, adapter: pathlib.Path, one: np.ndarray):
    """A base model in one file is found again by what the adapter's config.json says, and draws as its folder does."""
    prompts, negative = AdapterConditioner.from_pretrained(adapter).encode_guided([PROMPT])
    pipeline = TextToImage.from_pretrained(settings.base_model_config)
    pictures = pipeline.generate(prompts, negative, Sampling(2, guidance_scale=7.5, seed=5), height=SIZE, width=SIZE)
    assert pictures.std() > 10
    np.testing.assert_allclose(one, pictures[0], atol=1)


def test_the_base_model_draws_english_by_itself(settings: ConfigDict, tmp_path: pathlib.Path):
    """Into data to be trained on: what else a line says is in the record of its picture."""
    (tmp_path / "pairs.jsonl").write_text(json.dumps(dict(prompt="a cat", caption_en="a cat", caption_ru="кот")))
    flags = dict(prompts=tmp_path / "pairs.jsonl", steps=2, width=SIZE, height=SIZE, out=f"{tmp_path}/out/")
    generate(None, base_model=settings.base_model, base_model_config=settings.base_model_config, **flags)
    sample = open_source(f"{tmp_path}/out")[0]
    assert (sample.caption("ru"), sample.caption("en")) == ("кот", "a cat")
    prompts, negative = load_conditioner(settings.base_model_config).encode_guided(["a cat"])
    pipeline = TextToImage.from_pretrained(settings.base_model_config)
    pictures = pipeline.generate(prompts, negative, Sampling(2, guidance_scale=7.5), height=SIZE, width=SIZE)
    np.testing.assert_allclose(sample.pixels().astype(int), pictures[0], atol=1)


def test_a_folder_is_gone_on_with(adapter: pathlib.Path, tmp_path: pathlib.Path):
    prompts = [
        dict(prompt=PROMPT),
        dict(prompt="кот", seed=5, negative_prompt="пёс", id="a"),
        dict(prompt="кот", size=[4, 8]),
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    out, flags = tmp_path / "out", dict(prompts=tmp_path / "prompts.jsonl", batch_size=1, seed=5)
    generate(adapter, out=f"{out}/", **flags)
    records = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [record["file_name"] for record in records] == ["00000.png", "00001.png", "00002.png"]
    assert records[1] | prompts[1] == records[1] and read(out / "00002.png").shape == (8, 4, 3)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    for name in ("00000.png", "metadata.jsonl"):
        (out / name).unlink()
    generate(adapter, out=f"{out}/", **flags)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


def test_several_seeds_of_a_prompt(adapter: pathlib.Path, one: np.ndarray, tmp_path: pathlib.Path):
    """Side by side in a grid; in a folder, the pictures that each seed gives alone."""
    generate(adapter, prompt=PROMPT, seeds="3,5", out=tmp_path / "grid.png")
    generate(adapter, prompt=PROMPT, seeds="3,5", out=f"{tmp_path}/both/")
    first, second = (read(tmp_path / "both" / f"0000{row}.png") for row in (0, 1))
    np.testing.assert_allclose(second, one, atol=1)
    grid = read(tmp_path / "grid.png")
    places = np.lib.stride_tricks.sliding_window_view(grid, (SIZE, SIZE, 3))[:, :, 0]
    close = [np.argwhere(abs(places - picture).max((2, 3, 4)) <= 1) for picture in (first, second)]
    assert len(close[0]) == len(close[1]) == 1
    (y, x), (below, beside) = close[0][0], close[1][0]
    assert below == y and beside > x


def test_from_a_picture_with_a_lora(settings: ConfigDict, adapter: pathlib.Path, tmp_path: pathlib.Path):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), np.eye(SIZE, dtype=np.uint8) * 255
    for name, picture in (("image", image), ("mask", mask)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    factors = dict(lora_A=rng.normal(size=(2, 16)), lora_B=rng.normal(size=(8, 2)))
    save_file({f"{name}.{key}.weight": x.astype(np.float32) for key, x in factors.items()}, tmp_path / "a.safetensors")
    pictures = dict(init_image=tmp_path / "image.png", mask=tmp_path / "mask.png", strength=0.5)
    how = dict(steps=4, guidance_scale=1.0, scheduler="lcm")
    lora = tmp_path / "a.safetensors"
    base = settings.base_model_config
    generate(adapter, prompt="кот", out=tmp_path / "a.png", base=base, lora=f"{lora}:0.5", **pictures, **how)
    prompts, negative = AdapterConditioner.from_pretrained(adapter).encode_guided(["кот"])
    pipeline = TextToImage.from_pretrained(base, loras=[(lora, 0.5)])
    guides, sampling = Guides(image[None], mask[None]), Sampling(strength=0.5, **how)
    expected = pipeline.generate(prompts, negative, sampling, height=SIZE, width=SIZE, guides=guides)[0]
    np.testing.assert_allclose(read(tmp_path / "a.png"), expected, atol=1)


def test_a_folder_is_not_gone_on_with_after_a_lora_has_changed(settings, adapter, tmp_path: pathlib.Path):
    name, lora = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", tmp_path / "a.safetensors"
    flags = dict(adapter=adapter, prompt="кот", lora=lora, base=settings.base_model_config, out=f"{tmp_path}/out/")
    results = []
    for value, beside in ((0.1, ""), (0.1, ""), (0.2, ""), (0.1, '{"lora_alpha": 4}')):
        factors = dict(lora_A=np.full((2, 16), value, np.float32), lora_B=np.ones((8, 2), np.float32))
        save_file({f"{name}.{key}.weight": x for key, x in factors.items()}, lora)
        if beside:
            (tmp_path / "adapter_config.json").write_text(beside)  # where peft has the alpha
        results.append(commands.run_forked(commands.command("generate", {}, **flags)))
    assert [result.returncode for result in results] == [0, 0, 1, 1], results[1].stderr
    assert all("its pictures were drawn with lora_hashes=" in result.stderr for result in results[2:])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (dict(out="a.jpg"), "--out a.jpg: pictures are written as PNG; name a.png"),
        (dict(out="a.png", width=0), "--width=0"),
        (dict(out="a.png", seed=1, seeds="1,2"), "--seed and --seeds: give one of them"),
        (dict(out="a.png", seeds="1,x"), "--seeds 1,x: must be whole numbers from 0 to 4294967295"),
        (dict(out="a.png", seeds="4294967296"), "--seeds 4294967296: must be whole numbers"),
    ],
)
def test_what_would_not_be_done_is_refused(flags, said):
    result = commands.run_forked(commands.command("generate", {}, adapter="nowhere", prompt="кот", **flags))
    assert result.returncode == 1 and said in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (dict(lora="loha.safetensors"), "loha.safetensors: LoHa (.*) is not supported, only LoRA"),
        (dict(controlnet="t2i"), "of a T2IAdapter, not of a ControlNetModel"),
        (dict(controlnet="other"), "this ControlNet was made for another base model"),
        (dict(steps=0), "steps=0: must be at least 1"),
        (dict(width=7), "picture size 7x8"),
    ],
)
def test_what_does_not_go_together_is_told_before_weights_are_read(settings, tmp_path: pathlib.Path, flags, said):
    """There are none: they were the next complaint."""
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(settings.base_model_config, tmp_path / "base", ignore=weights)
    save_file({"lora_unet_mid_block.hada_w1_a": np.ones((8, 8), np.float32)}, tmp_path / "loha.safetensors")
    for name, fields in (("t2i", dict(_class_name="T2IAdapter", channels=[4])), ("other", dict(cross_attention_dim=5))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(fields))
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "edges.png")
    control = dict(control_image=tmp_path / "edges.png") if "controlnet" in flags else {}
    files = {flag: tmp_path / value for flag, value in flags.items() if isinstance(value, str)}
    usual = dict(base_model=tmp_path / "base", prompt="a cat", width=SIZE, height=SIZE, out=tmp_path / "a.png")
    result = commands.run_forked(commands.command("generate", {}, **usual | flags | files | control))
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert re.search(said, result.stderr), result.stderr


@pytest.mark.slow  # a minute: three processes, each of which compiles
def test_two_processes_share_a_folder(adapter: pathlib.Path, tmp_path: pathlib.Path):
    (tmp_path / "prompts.txt").write_text("красное яблоко\nкот\nпёс\n")
    flags = dict(adapter=adapter, prompts=tmp_path / "prompts.txt", batch_size=2)
    generate(adapter, prompts=flags["prompts"], batch_size=2, out=f"{tmp_path}/one/")
    both = start_two(commands.command("generate", {}, out=f"{tmp_path}/two/", **flags))
    said = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "generation.json", "metadata.jsonl"]
    for name in names[:3]:
        np.testing.assert_allclose(read(tmp_path / "two" / name), read(tmp_path / "one" / name), atol=1)
