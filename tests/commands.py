"""Runs the real commands in processes of their own, on tiny models and a dozen emoji."""

import json
import multiprocessing
import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENCODER = ROOT / "assets" / "multilingual-e5-small"
CONFIG = "configs/ru.py:emoji"
FORKS = multiprocessing.get_context("forkserver")
PRELOADED = [
    "pea_jax.adapter_folder",
    "pea_jax.command",
    "pea_jax.distill.judging",
    "diffusers.loaders.single_file_utils",  # and with it PyTorch: what base models in one file need
]
TINY = dict(
    batch_size=4,
    num_steps=12,
    log_every=1,
    **{
        "text_encoder.context_length": 16,  # as the tiny base model has
        "adapter.hidden_dim": 16,
        "checkpoint.every": 3,
        "sample.every": 6,
        "sample.count": 2,
        "sample.steps": 2,
        "evaluation.steps": 2,
        "evaluation.seen": 4,
        "evaluation.batch_size": 4,
    },
)


def write_shard(path: pathlib.Path, source: str, count: int) -> None:
    """The first `count` samples of a shard of the corpus."""
    with tarfile.open(ROOT / "assets" / "emoji" / source) as corpus, tarfile.open(path, "w") as tar:
        for member in corpus.getmembers()[: 2 * count]:
            tar.addfile(member, corpus.extractfile(member))


def write_encoder(folder: pathlib.Path) -> None:
    """The shipped text encoder with two small layers of random weights; the tokenizer is its own."""
    from tests.tiny_text_models import random_bert

    config = json.loads((ENCODER / "config.json").read_text())
    del config["_note"]
    config |= dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    random_bert(**config).save_pretrained(folder)
    shutil.copy(ENCODER / "tokenizer.json", folder)


def write_world(folder: pathlib.Path) -> dict[str, object]:
    """A base model, a text encoder and two shards; returns the config fields that point to them."""
    from tests import tiny_sdxl  # PyTorch, for which a forked command, which imports this module, should not wait

    tiny_sdxl.save(folder / "base")
    write_encoder(folder / "encoder")
    write_shard(folder / "train.tar", "emoji-train-00000.tar", 12)
    write_shard(folder / "val.tar", "emoji-val-00000.tar", 4)
    data = {"data.train": folder / "train.tar", "data.english": "", "data.validation": folder / "val.tar"}
    return {**TINY, **data, "base_model": folder / "base", "text_encoder.id": folder / "encoder"}


def command(name: str, fields: dict[str, object], **flags: object) -> list[str]:
    given = [f"--{flag}={value}" for flag, value in flags.items()]
    overridden = [f"--config.{field}={value}" for field, value in fields.items()]
    return [sys.executable, "-m", f"pea_jax.{name}", *given, *overridden]


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False)


def run_forked(arguments: list[str]) -> subprocess.CompletedProcess:
    """As `run`, with what the commands import already there: the seconds that this takes are spent once."""
    FORKS.set_forkserver_preload(PRELOADED)
    _, _, module, *flags = arguments
    with tempfile.TemporaryDirectory() as folder:
        streams = [pathlib.Path(folder, name) for name in ("stdout", "stderr")]
        process = FORKS.Process(target=_run_module, args=(module, flags, streams))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in streams))


def _run_module(module: str, flags: list[str], streams: list[pathlib.Path]) -> None:
    for descriptor, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(ROOT)
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
