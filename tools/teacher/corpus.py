"""The English half of the emoji corpus, as the teacher sees it."""

import dataclasses
import io
import json
import pathlib
import random
import tarfile

import numpy as np
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2] / "assets" / "emoji"


@dataclasses.dataclass(frozen=True)
class Emoji:
    key: str
    name: str
    keywords: list[str]
    family: str
    is_flag: bool
    pixels: np.ndarray  # [64, 64, 3] uint8


def load(flags: bool) -> list[Emoji]:
    """Every emoji of both splits, in the order of the shards; with or without the flags."""
    shards = sorted(ROOT.glob("*.tar" if flags else "emoji-*.tar"))
    return [emoji for shard in shards for emoji in _read(shard)]


def _read(shard: pathlib.Path) -> list[Emoji]:
    with tarfile.open(shard) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    keys = [name.removesuffix(".json") for name in files if name.endswith(".json")]
    return [_emoji(key, json.loads(files[f"{key}.json"]), files[f"{key}.png"]) for key in keys]


def _emoji(key: str, record: dict, png: bytes) -> Emoji:
    return Emoji(
        key=key,
        name=record["caption_en"],
        keywords=[word for word in record["keywords_en"] if word != record["caption_en"]],
        family=record["family"],
        is_flag=record["is_flag"],
        pixels=np.asarray(Image.open(io.BytesIO(png)).convert("RGB")),
    )


def to_tensor(emojis: list[Emoji]) -> torch.Tensor:
    """Pictures as `[N, 3, 64, 64]` in [-1, 1]."""
    pixels = np.stack([emoji.pixels for emoji in emojis])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def captions(emoji: Emoji) -> list[str]:
    """Eight ways to ask for a picture: its name, five times the name with keywords, twice keywords alone."""
    rng = random.Random(emoji.key)
    named = [", ".join([emoji.name, *_pick(rng, emoji.keywords, 1, 3)]) for _ in range(5)]
    unnamed = [", ".join(_pick(rng, emoji.keywords or [emoji.name], 2, 4)) for _ in range(2)]
    return [emoji.name, *named, *unnamed]


def full_caption(emoji: Emoji) -> str:
    """The name and every keyword."""
    return ", ".join([emoji.name, *emoji.keywords])


def _pick(rng: random.Random, words: list[str], least: int, most: int) -> list[str]:
    return rng.sample(words, min(len(words), rng.randint(least, most)))
