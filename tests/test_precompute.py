"""Latents and text states computed ahead, by the command."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

from pea_jax import config as configs
from pea_jax.data import CachedSource
from pea_jax.distill import precomputed
from pea_jax.distill.models import load_encoders
from pea_jax.distill.training_set import caption_rules, training_set
from pea_jax.mesh import make_mesh
from pea_jax.text.encoders import TextEncoder
from tests import commands


@pytest.fixture(scope="module")
def written(world, tmp_path_factory):
    """The command's fields and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("precompute")
    fields = {name: value for name, value in world[1].items() if not name.startswith("sample")}
    result = commands.run_forked(commands.command("precompute", fields, config=commands.CONFIG, out=folder / "cache"))
    assert result.returncode == 0, result.stderr
    return fields, folder / "cache"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_missing_is_made_again(written):
    fields, folder = written
    before = contents(folder)
    assert len(before) == 2
    (folder / "part-00000.array_record").unlink()
    arguments = commands.command("precompute", fields, config=commands.CONFIG, out=folder)
    result = commands.run_forked(arguments)
    assert result.returncode == 0 and "1 parts written" in result.stdout
    assert contents(folder) == before
    result = commands.run_forked(arguments)
    assert result.returncode == 0 and "all parts are there" in result.stdout


@pytest.mark.parametrize("command", ["precompute", "train"])
def test_a_cache_of_other_models_is_refused(written, tmp_path, command):
    fields, folder = written
    others = {**fields, "text_encoder.prefix": "query: "}
    if command == "train":
        others |= {"data.cached": True, "data.cache_dir": folder}
        flags = dict(workdir=tmp_path / "run")
    else:
        flags = dict(out=folder)
    result = commands.run_forked(commands.command(command, others, config=commands.CONFIG, **flags))
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert "made with text_encoder.prefix = ''" in result.stderr


def test_a_cache_of_a_shard_that_was_replaced_is_refused(written, tmp_path):
    """By one of the same name and size; a shard that was copied anew is the same."""
    fields, folder = written
    cache, shard = shutil.copytree(folder, tmp_path / "cache"), shutil.copy(fields["data.train"], tmp_path / "a.tar")
    path = cache / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"train": str(shard)}))
    arguments = commands.command("precompute", {**fields, "data.train": shard}, config=commands.CONFIG, out=cache)
    result = commands.run_forked(arguments)
    assert result.returncode == 0 and "all parts are there" in result.stdout, result.stderr
    before, field, after = shard.read_bytes().partition(b'"caption_en": "')
    shard.write_bytes(before + field + b"X" + after[1:])
    result = commands.run_forked(arguments)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert f"{cache}: made with samples = " in result.stderr and "name another folder" in result.stderr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_numbers_are_those_of_the_step(world, tmp_path, dtype):
    """Text states bit for bit, as one batch of the same texts gives them, in the dtype that the step would have.

    Another size of the batch sums in another order: the rest is rounding.
    """
    config = configs.emoji("ru")
    config.update_from_flattened_dict({name: _plain(value) for name, value in world[1].items()})
    config.dtype, config.data.buckets = dtype, ((64, 64), (32, 64))
    mesh = make_mesh(devices=jax.devices()[:1])
    models = load_encoders(config, mesh)
    training = training_set(config)
    precomputed.precompute(config, models, training, tmp_path / "cache", mesh)
    source, captions = training.source, caption_rules(config)
    cached = CachedSource(tmp_path / "cache", precomputed.made_with(config, models, source))
    records = [cached[number] for number in range(len(cached))]
    texts = [captions(source[number]) for number in range(len(source))]
    states = _in_one_batch(models.student, [text for each in texts for text in each.student])
    teacher = _in_one_batch(models.teacher, [text for each in texts for text in each.teacher])
    expected = dict(
        states=states, prompt_embeds=teacher.prompt_embeds, pooled_prompt_embeds=teacher.pooled_prompt_embeds
    )
    for name, values in expected.items():
        found = np.concatenate([record[name] for record in records])
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.asarray(values)[: len(found)], err_msg=name)
    moments = models.vae.encode(source[3].pixels()[None].astype(np.float32) / 127.5 - 1)[0]
    np.testing.assert_allclose(
        records[3]["moments"].astype(np.float32), np.asarray(moments, np.float32), rtol=0.02, atol=0.02
    )


def test_a_run_on_some_of_the_cores_makes_its_cache_there(world, tmp_path):
    """As with 6 cores, of which 4 share a batch of 32; here with 3, of which 2 share one of 4, and split parameters."""
    program = """
import pathlib, sys
import jax
from pea_jax import config as configs, mesh, partition
from pea_jax.distill import models, precomputed, training_set
jax.config.update("jax_num_cpu_devices", 3)
partition.SMALLEST_SHARDED = 2**8
fields = configs.emoji("ru")
fields.batch_size, fields.base_model, fields.data.train, folder = 4, *sys.argv[1:]
fields.text_encoder.context_length, fields.data.english = 16, ""
some = mesh.make_mesh_for(fields.batch_size, data=1, fsdp=-1)
assert some.size == 2
training = training_set.training_set(fields)
found = precomputed.cached_source(fields, models.load_encoders(fields, some), training, pathlib.Path(folder))
assert len(found) == 12
"""
    paths = [str(world[1][name]) for name in ("base_model", "data.train")]
    result = commands.run([sys.executable, "-c", program, *paths, str(tmp_path / "cache")])
    assert result.returncode == 0, result.stderr


def _in_one_batch(encoder, texts: list[str]):
    """As many rows as the cache's encoder takes at a time."""
    tokens = encoder.tokenize(texts + texts[-1:] * (64 - len(texts)))
    if isinstance(encoder, TextEncoder):
        return jax.jit(encoder.apply)(encoder.params, **tokens)
    return jax.jit(encoder.apply)(encoder.params, tokens)


def _plain(value):
    return value if isinstance(value, (int, float, bool)) else str(value)


def test_the_manifest_names_what_the_numbers_depend_on(written):
    manifest = json.loads((written[1] / "manifest.json").read_text())
    assert {"train", "text_encoder", "weights", "dtype", "buckets", "cleaning", "filters"} <= manifest.keys()
    assert manifest["parts"] == [[64, 64, 12]]
