"""What a run would see: the real command on toys."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests import commands
from tests.data.conftest import png


def members(number: int, size: tuple[int, int], **record) -> dict[str, bytes]:
    record = dict(caption_ru=f"яблоко {number}", caption_en=f"apple {number}") | record
    return {"png": png((number, 0, 0), size), "json": json.dumps(record).encode()}


@pytest.fixture
def shards(write_shard, tmp_path) -> str:
    """Two sets: 6 square, 3 wide, 1 native without English, 2 small, 1 bad record."""
    square = {f"s{number}": members(number, (20, 20)) for number in range(6)}
    wide = {f"w{number}": members(number, (30, 20)) for number in range(3)}
    native = {"n": members(50, (20, 20), native=True, caption_en="", caption_ru="щи")}
    small = {f"x{number}": members(number, (9, 9)) for number in range(2)}
    write_shard("a-0.tar", square | native)
    write_shard("a-1.tar", small)
    write_shard("b.tar", wide | {"y": {**members(1, (20, 20)), "json": b"[1]"}})
    return f"{tmp_path}/a-{{0..1}}.tar {tmp_path}/b.tar"


def inspect(shards: str, *flags: str, **fields):
    data = {"data.train": shards, "data.english": "", "data.buckets": "((16, 16), (24, 16))"}
    fields = data | {"data.filters.min_side": 10} | fields
    arguments = commands.command("data.inspect", {"batch_size": 3, **fields}, config=commands.CONFIG)
    return commands.run_forked([*arguments, *flags])


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their spaces."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


def test_tables_and_sheet(shards, tmp_path):
    result = inspect(shards, "--out", str(tmp_path / "new" / "sheet.png"))
    assert result.returncode == 0, result.stderr
    found = rows(result.stdout)
    counts = [row[1:] for row in found if row[0].endswith(".tar")]
    assert counts == [["2", "9", "7"], ["1", "4", "3"]]
    for expected in (
        ["sample cannot be read", "1", "12"],
        ["a side below 10 pixels", "2", "10"],
        ["translated", "caption_ru", "1", "9"],
        ["english", "caption_en", "0", "0"],
        ["16x16", "7", "70.0%", "66.7%", "2"],
        ["24x16", "3", "30.0%", "33.3%", "1"],
        ["n", "щи", "", "the picture"],
    ):
        assert expected in found, expected
    assert re.search(r"b\.tar: sample y: .*JSON object", " ".join(result.stdout.split()))
    assert any(
        row[0].startswith("tokens of assets/multilingual-e5-small") and row[-2:] == ["0.0%", "0.0%"] for row in found
    )
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    reds = {colour[0] for colour in sheet.reshape(-1, 3).tolist() if colour[1:] == [0, 0]}
    assert reds >= {0, 1, 2, 3, 4, 5, 50}


def test_pictures_of_which_none_can_be_decoded(write_shard, tmp_path):
    torn = {f"s{i}": members(i, (20, 20)) | {"png": png((i, 0, 0), (20, 20))[:45]} for i in range(6)}
    write_shard("a.tar", torn)
    result = inspect(f"{tmp_path}/a.tar", "--out", str(tmp_path / "sheet.png"))
    assert (result.returncode, (tmp_path / "sheet.png").exists()) == (1, False)
    assert re.fullmatch(r"error: .*/a\.tar: sample s\d: the image cannot be decoded .*\n", result.stderr), result.stderr


def test_captions_and_paths_are_shown_as_they_are(write_shard, tmp_path):
    """What stands in brackets or between colons is no markup of the screen's."""
    own, english = "[red] แมว [/caption]", "a :cat: [1]"
    write_shard("[a].tar", {f"s{i}": members(i, (20, 20), caption_ru=own, caption_en=english) for i in range(6)})
    result = inspect(f"{tmp_path}/[a].tar", "--out", str(tmp_path / "[b].png"))
    assert result.returncode == 0, result.stderr
    assert ["s0", own, english, "the teacher"] in rows(result.stdout)
    assert any(row[-1] == "100.0%" for row in rows(result.stdout) if row[0].startswith("tokens of")), "unknown letters"
    assert "/[a].tar" in result.stdout and "/[b].png: pictures" in result.stdout


def test_english_alone(shards, write_shard):
    english = write_shard("c.tar", {"e": members(7, (20, 20))})
    result = inspect(shards, **{"data.english": english})
    assert result.returncode == 0, result.stderr
    found = rows(result.stdout)
    (row,) = [row for row in found if row[0].startswith(f"{english}, English")]  # the rest is on the next line
    assert row[1:] == ["1", "1", "1"]
    assert ["english", "caption_en", "0", "1"] in found and ["translated", "caption_ru", "1", "9"] in found


def test_a_bucket_too_small_is_named_at_the_end(shards):
    result = inspect(shards, **{"batch_size": 4})
    assert result.returncode == 1 and "24x16" in result.stdout
    assert result.stderr.startswith("error: bucket (24, 16): 3 samples are less than one batch of 4; lower batch_size")


def test_braces_that_the_shell_has_expanded(shards):
    result = inspect(shards, "--config.data.validation=a.tar", "--config.data.validation=b.tar")
    assert result.returncode == 1 and not result.stdout.strip()
    assert result.stderr.startswith("error: --config.data.validation has 2 values, of which the last alone")


def test_a_set_of_which_nothing_is_left_is_shown_all_the_same(shards):
    result = inspect(shards, **{"data.filters.min_side": 100})
    assert result.returncode == 1 and ["a side below 100 pixels", "12", "0"] in rows(result.stdout)
    assert "none of 13 samples passes config.data.filters" in result.stderr


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_a_line_of_pixels_is_shown(write_shard, tmp_path, size):
    """On the sheet it would be thinner than a pixel."""
    path = write_shard("lines.tar", {f"{number}": members(number, size) for number in range(3)})
    result = inspect(path, "--out", str(tmp_path / "sheet.png"), **{"data.filters.min_side": 0})
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "sheet.png").exists()
