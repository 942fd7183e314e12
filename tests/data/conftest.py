"""Shards made for one test."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image


def png(color: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def sample(number: int, **record) -> dict[str, bytes]:
    """Members by extension: a picture whose red channel is `number`, with captions that name it."""
    record = {"caption_en": f"apple {number}", "caption_ru": f"яблоко {number}", "keywords_ru": ["плод"]} | record
    return {"png": png((number, 0, 0)), "json": json.dumps(record, ensure_ascii=False).encode()}


@pytest.fixture
def write_shard(tmp_path):
    """`write_shard(name, {key: {extension: bytes}})` returns the path of a tar."""

    def write(name: str, samples: dict[str, dict[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> str:
        path = tmp_path / name
        with tarfile.open(path, "w", format=format) as tar:
            for key, members in samples.items():
                for extension, data in members.items():
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        return str(path)

    return write


@pytest.fixture
def shard(write_shard):
    """A shard of 23 samples with the keys 000 to 022."""
    return write_shard("a-000.tar", {f"{number:03d}": sample(number) for number in range(23)})


@pytest.fixture
def make_sample():
    return sample


@pytest.fixture
def rng():
    return np.random.default_rng(0)
