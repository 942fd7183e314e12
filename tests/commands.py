"""Runs the real commands in processes of their own, on a tiny base model and a dozen emoji."""

import os
import pathlib
import subprocess
import sys
import tarfile

from tests import tiny_sdxl

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = dict(
    batch_size=4,
    num_steps=12,
    log_every=1,
    **{
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


def write_world(folder: pathlib.Path) -> dict[str, object]:
    """A base model and two shards; returns the config fields that point to them."""
    tiny_sdxl.save(folder / "base")
    write_shard(folder / "train.tar", "emoji-train-00000.tar", 12)
    write_shard(folder / "val.tar", "emoji-val-00000.tar", 4)
    data = {"data.train": folder / "train.tar", "data.validation": folder / "val.tar"}
    return {**TINY, **data, "base_model": folder / "base"}


def command(name: str, fields: dict[str, object], **flags: object) -> list[str]:
    given = [f"--{flag}={value}" for flag, value in flags.items()]
    overridden = [f"--config.{field}={value}" for field, value in fields.items()]
    return [sys.executable, "-m", f"pea_jax.{name}", *given, *overridden]


def environment(cache: pathlib.Path) -> dict[str, str]:
    """Compiled programs are kept in `cache`, so that a second process need not compile them again."""
    settings = dict(JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    return os.environ | settings


def run(arguments: list[str], cache: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=environment(cache), check=False)
