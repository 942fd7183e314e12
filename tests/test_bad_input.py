"""Bad input to the real commands: one clear line, exit code 1, and nothing left behind."""

import io
import json
import pathlib
import shutil
import tarfile

import grain
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from pea_jax import adapter_folder, config, mesh
from pea_jax.checkpoint import Checkpoints
from pea_jax.distill import models
from pea_jax.weights.adapter_layouts import WEIGHTS
from tests import commands
from tests.commands import CONFIG

KEY = "conv_in.bias"  # of the UNet
TERMS = ("loss.noise", "loss.output", "loss.features", "loss.conditioning", "loss.contrast")
DAMAGED = "checkpoints/3: this checkpoint cannot be restored"


@pytest.fixture(scope="module")
def stopped(world, tmp_path_factory) -> pathlib.Path:
    """The work directory of a run that was stopped after step 3, with the adapter of that step in it."""
    workdir = tmp_path_factory.mktemp("stopped")
    settings = _config({**world[1], "data.cached": False})
    (workdir / "config.json").write_text(settings.to_json())
    devices = mesh.make_mesh()
    frozen = models.load_models(settings, devices)
    adapter = models.new_adapter(settings, frozen)
    with Checkpoints(workdir / "checkpoints", every=1, keep=2) as checkpoints:
        for step in (2, 3):
            iterator = iter(grain.MapDataset.range(12).repeat().to_iter_dataset())
            checkpoints.save(step, models.new_state(settings, adapter, devices), iterator)
    adapter_folder.save(workdir / "adapter", settings, adapter, frozen.student, step=3)
    return workdir


def _config(fields: dict[str, object]) -> ConfigDict:
    settings = config.emoji("ru")
    settings.update_from_flattened_dict({name: _plain(value) for name, value in fields.items()})
    return settings


def _plain(value: object) -> object:
    return str(value) if isinstance(value, pathlib.Path) else value


def assert_refused(arguments: list[str], message: str, *, run=commands.run_forked, place: pathlib.Path) -> None:
    """One line that says `message`, exit code 1, and in `place` the files that were there before."""
    before = _files(place)
    result = run(arguments)
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ") and message in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stdout, result.stderr
    assert _files(place) == before


def _files(place: pathlib.Path) -> dict[pathlib.Path, bytes | None]:
    """All folders and files; what is noted of a shard is kept beside it and is no harm."""
    paths = [path for path in place.rglob("*") if path.suffix not in (".pea_index", ".pea_survey")]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


# Configuration and data.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batchsize": 4}, "no field 'batchsize'; Did you mean \"batch_size\""),
        ({"optimizer.learning_rat": 1.0}, 'Did you mean "learning_rate"'),
        ({"batch_size": "many"}, "--config.batch_size=many"),
        ({"data.train": "nowhere-{0..1}.tar"}, "nowhere-0.tar: no such shard"),
        ({"base_model": "no/such/model"}, "'no/such/model': no such model folder"),
        ({"data.cached": False, "batch_size": 5000, "base_model": "no/such/model"}, "lower batch_size"),
        ({"language": "xx"}, "none of 12 samples has text in a field of the language (caption_xx)"),
        ({"checkpoint.every": 0}, "config.checkpoint.every=0: must be at least 1"),
        ({"batch_size": 0}, "config.batch_size=0: must be at least 1"),
        ({"optimizer.warmup_steps": -5}, "config.optimizer.warmup_steps=-5: must be at least 0"),
        ({"condition_dropout": 2.0}, "config.condition_dropout=2.0: must be at most 1"),
        ({"data.max_bad_rate": -0.1}, "config.data.max_bad_rate=-0.1: must be at least 0"),
        ({"min_timestep": 1000}, "config.min_timestep=1000: must be less than config.max_timestep=1000"),
        ({"dtype": "float16"}, "config.dtype='float16': choose from float32, bfloat16"),
        ({"vae_dtype": "half"}, "config.vae_dtype='half': choose from float32, bfloat16"),
        ({"remat": "all"}, "config.remat='all': choose from none, block, full"),
        (dict.fromkeys(TERMS, 0), "every weight is 0"),
        ({"data.buckets": ()}, "config.data.buckets: there are none"),
        ({"data.buckets": "((64, 64), (72, 60))"}, "config.data.buckets: picture size 72x60: width and height must"),
        ({"picture_size": "(64, 0)"}, "config.picture_size: picture size 64x0: width and height must"),
        ({"mesh.fsdp": 0}, "x fsdp=0 does not cover"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fields(world, tmp_path, change, message):
    arguments = commands.command("train", {**world[1], **change}, config=CONFIG, workdir=tmp_path / "run")
    assert_refused(arguments, message, place=tmp_path)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_truncated_shard(world, stopped, tmp_path, name):
    folder, fields = world
    shard = tmp_path / "cut.tar"
    shard.write_bytes((folder / "train.tar").read_bytes()[:9000])
    arguments = _command(name, {**fields, "data.validation": shard}, stopped, tmp_path / "out")
    assert_refused(arguments, f"{shard}: truncated at byte 9000", place=tmp_path)


def test_a_caption_that_is_missing(world, tmp_path):
    """Where no sample prompt lies; found before anything is computed."""
    folder, fields = world
    shard = tmp_path / "without.tar"
    key = _copy_without_last_caption(folder / "train.tar", shard)
    arguments = commands.command("train", {**fields, "data.train": shard}, config=CONFIG, workdir=tmp_path / "run")
    assert_refused(arguments, f"{shard}: sample {key}: no text in field caption_ru; add it", place=tmp_path)


def _copy_without_last_caption(source: pathlib.Path, target: pathlib.Path) -> str:
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        members = [(member, old.extractfile(member).read()) for member in old.getmembers()]
        last = max(number for number, (member, _) in enumerate(members) if member.name.endswith(".json"))
        for number, (member, content) in enumerate(members):
            if number == last:
                record = json.loads(content)
                del record["caption_ru"]
                content = json.dumps(record).encode()
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
        return members[last][0].name.removesuffix(".json")


# Weights of the base model.


@pytest.mark.parametrize(
    ("part", "damage", "message"),
    [
        ("unet", "rename", f"1 missing ({KEY}); 1 unexpected (renamed)"),
        ("unet", "reshape", f"1 of wrong shape ({KEY} is [3], must be [8])"),
        ("vae", "truncate", "diffusion_pytorch_model.safetensors: not a complete safetensors file"),
    ],
)
def test_base_model_weights(world, tmp_path, part, damage, message):
    folder, fields = world
    shutil.copytree(folder / "base", tmp_path / "base")
    path = tmp_path / "base" / part / "diffusion_pytorch_model.safetensors"
    _damage(path, damage, KEY)
    fields = {**fields, "base_model": tmp_path / "base"}
    arguments = commands.command("train", fields, config=CONFIG, workdir=tmp_path / "run")
    assert_refused(arguments, message, place=tmp_path)


def _damage(path: pathlib.Path, how: str, key: str = "layernorm.bias") -> None:
    if how == "truncate":
        path.write_bytes(path.read_bytes()[:-20])
        return
    tensors = load_file(path)
    tensor = tensors.pop(key)
    tensors["renamed" if how == "rename" else key] = tensor if how == "rename" else np.zeros(3, tensor.dtype)
    save_file(tensors, path)


# Places that cannot be written: root may write anywhere, but not below a file nor in /proc.


@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        ("train", "file", "--workdir {}: cannot be written"),
        ("train", "file/run", "--workdir {}: cannot be written"),
        ("train", "/proc/run", "--workdir {}: cannot be written"),
        ("generate", "file/out.png", "--out {}: cannot be written"),
        ("evaluate", "/proc/report.json", "--out {}: cannot be written"),
        ("export", "file/adapter", "--out {}: cannot be written"),
        ("export", "file", "{}: is a file; name a directory"),
        ("train", "link", "--workdir {}: cannot be written"),
        ("generate", "x" * 300 + "/out.png", "--out {}: cannot be written"),
        ("generate", "x" * 250 + ".png", "--out {}: cannot be written"),
    ],
)
def test_places(world, stopped, tmp_path, name, where, message):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    arguments = _command(name, world[1], stopped, tmp_path / where)
    assert_refused(arguments, message.format(tmp_path / where), place=tmp_path)


@pytest.mark.parametrize("name", ["train", "generate", "evaluate", "export", "precompute"])
@pytest.mark.parametrize(("out", "message"), [("", " needed"), ("~/run.json", "~/run.json: the shell reads ~ only")])
def test_what_the_shell_has_not_filled_in(stopped, tmp_path, name, out, message):
    """`--out=$UNSET` would be the folder that one stands in, and `--out=~/run` a folder of the name `~`."""
    fields = {"data.train": "nowhere.tar"}
    if name == "precompute":
        arguments = commands.command(name, fields, config=CONFIG, out=out)
    else:
        arguments = _command(name, fields, stopped, out)
    assert_refused(arguments, message, place=tmp_path)
    assert not (commands.ROOT / "~").exists()


@pytest.mark.parametrize("name", ["train", "generate", "evaluate", "export"])
def test_a_remote_store_is_no_place_to_write(world, stopped, tmp_path, name):
    """To pathlib `gs://bucket/run` is a folder `gs:` here."""
    arguments = _command(name, world[1], stopped, "gs://bucket/run.json")
    assert_refused(arguments, "gs://bucket/run.json: only training data are read from a remote store", place=tmp_path)
    assert not (commands.ROOT / "gs:").exists()


def test_export_replaces_nothing_but_an_adapter(stopped, tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert_refused(_command("export", {}, stopped, tmp_path), "holds no adapter (thesis.tex)", place=tmp_path)


def _command(name: str, fields: dict[str, object], workdir: pathlib.Path, out: pathlib.Path | str) -> list[str]:
    """A command that reads `workdir` or the adapter in it, and writes to `out`; `train` only writes."""
    adapter = {"adapter": workdir / "adapter", "out": out}
    if name == "train":
        return commands.command(name, fields, config=CONFIG, workdir=out)
    if name == "export":
        return commands.command(name, {}, workdir=workdir, out=out)
    if name == "generate":
        return commands.command(name, {}, prompt="кот", **adapter)
    return commands.command(name, fields, config=CONFIG, **adapter)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (dict(prompts="{}/none.txt"), "{}/none.txt: cannot be read (No such file or directory)"),
        (dict(lora="{}/style.safetensors:0.5"), "--lora {}/style.safetensors:0.5: no such file"),
        (dict(lora="README.md:nan"), "--lora README.md:nan: its scale must be a finite number"),
        (dict(controlnet="{}"), "--controlnet and --control_image go together"),
        (dict(init_image="{}/none.png"), "{}/none.png: cannot be read (No such file or directory)"),
        (dict(control_scale=0.5), "--control_scale, --control_start and --control_end are of a ControlNet"),
        (dict(guidance_scale="nan"), "--guidance_scale nan: must be a number"),
        (dict(strength=0.5), "--mask and --strength are of a picture to start from; give --init_image"),
        (dict(seed=-1), "command line: flag --seed=-1"),
        (dict(negative_prompt="\udcea\udcf0"), "--prompt '\\udcea\\udcf0': not UTF-8"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_generate_cannot_start_from(stopped, tmp_path, flags, message):
    """Said before anything large is loaded."""
    given = {name: str(value).format(tmp_path) for name, value in flags.items()}
    flags = dict(adapter=stopped / "adapter", prompt="кот", out=tmp_path / "out", **given)
    arguments = commands.command("generate", {}, **flags)
    assert_refused(arguments, message.format(tmp_path), place=tmp_path)


# Adapters.


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("generate", lambda path: shutil.rmtree(path), "adapter/config.json: no such file"),
        ("generate", lambda path: (path / "config.json").write_text("{"), "adapter/config.json: not valid JSON"),
        ("generate", lambda path: _set(path, training=3), "training of the wrong type"),
        ("generate", lambda path: _set(path, base_model=""), "names no base_model; give --base_model"),
        ("generate", lambda path: (path / WEIGHTS).unlink(), f"adapter/{WEIGHTS}: no such file"),
        (
            "generate",
            lambda path: _damage(path / WEIGHTS, "truncate"),
            f"adapter/{WEIGHTS}: not a complete safetensors",
        ),
        ("generate", lambda path: _damage(path / WEIGHTS, "rename"), "1 missing (layernorm.bias); 1 unexpected"),
        ("evaluate", lambda path: _damage(path / WEIGHTS, "reshape"), "layernorm.bias is [3], must be [32]"),
        ("generate", lambda path: _widen(path), "adapter: this adapter was made for another base model"),
        ("evaluate", lambda path: _set(path, base_model="other"), "adapter: this adapter was made for 'other'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_adapter(world, stopped, tmp_path, name, change, message):
    shutil.copytree(stopped / "adapter", tmp_path / "adapter")
    change(tmp_path / "adapter")
    assert_refused(_command(name, world[1], tmp_path, tmp_path / "out"), message, place=tmp_path)


def _set(folder: pathlib.Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _widen(folder: pathlib.Path) -> None:
    """As for a base model with embeddings of another width."""
    tensors = load_file(folder / WEIGHTS)
    for name in ("fc.weight", "fc.bias"):
        tensors[name] = np.concatenate([tensors[name]] * 2)
    save_file(tensors, folder / WEIGHTS)


# Work directories and checkpoints.


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("export", lambda path: shutil.rmtree(path / "checkpoints"), "checkpoints: no checkpoint; there are none"),
        ("export", lambda path: (path / "config.json").unlink(), "not the work directory of a training run"),
        ("train", lambda path: (path / "config.json").write_text("{"), "config.json: cannot be read"),
        ("export", lambda path: (path / "config.json").write_text("{}"), "config.json: not a config of this version"),
        ("export", lambda path: shutil.rmtree(path / "checkpoints" / "3" / "state" / "d"), DAMAGED),
        ("train", lambda path: (path / "checkpoints" / "3" / "state" / "_METADATA").write_text("{"), DAMAGED),
    ],
)
def test_work_directory(world, stopped, tmp_path, name, change, message):
    """Training in a process of its own: reads of a damaged checkpoint that go on are heard of when a process ends."""
    shutil.copytree(stopped, tmp_path / "run")
    change(tmp_path / "run")
    out = tmp_path / ("run" if name == "train" else "out")
    arguments = _command(name, {**world[1], "data.cached": False}, tmp_path / "run", out)
    own = name == "train" and message == DAMAGED
    run = commands.run if own else commands.run_forked
    assert_refused(arguments, message, run=run, place=tmp_path)


def test_a_step_that_is_not_there(stopped, tmp_path):
    arguments = commands.command("export", {}, workdir=stopped, out=tmp_path / "out", step=7)
    assert_refused(arguments, "no checkpoint of step 7; there are 2, 3", place=tmp_path)
