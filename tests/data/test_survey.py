import dataclasses
import io
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from pea_jax.data import CaptionRules, Sample, WebDatasetSource, storage
from pea_jax.data.captions import Kind
from pea_jax.data.image_folder import ImageFolderSource
from pea_jax.data.samples import HEAD, Part
from pea_jax.data.survey import ROW, Bad, Surveyed, Surveyor, take_survey
from pea_jax.errors import BadSample, PeaError
from tests.data.conftest import png

RULES = CaptionRules("ru", native=("alt",))
SURVEYOR = Surveyor(RULES, "score", "mark")


class Source:
    """Samples in parts of two; counts how often each is read."""

    def __init__(self, folder: pathlib.Path, *samples: tuple[bytes, dict] | Exception):
        self.samples, self.reads, self.stamp = samples, [0] * len(samples), "1"
        self.folder = folder

    @property
    def parts(self) -> list[Part]:
        starts = range(0, len(self), 2)
        return [Part(str(self.folder / f"{start}.tar"), self.stamp, min(2, len(self) - start)) for start in starts]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Sample:
        self.reads[number] += 1
        if isinstance(found := self.samples[number], Exception):
            raise found
        return Sample("a.tar", str(number), *found)

    head = __getitem__


PAIR = dict(caption_ru="щи", caption_en="soup")


def test_rows(tmp_path):
    source = Source(
        tmp_path,
        (png(size=(30, 20)), PAIR | dict(score=6.5, mark=0)),
        (png(size=(8, 9)), dict(alt="каша", score="high")),
        (png(), dict(caption_en="soup", mark=None)),
        (png(), dict(other="text")),
        (png(), PAIR | dict(native=True)),
        (png(), PAIR | dict(score=10**400, mark=1e300)),
        (png(), PAIR | dict(score="5.25", mark=" 0.5 ")),
    )
    survey = take_survey(source, SURVEYOR)
    nan = np.nan
    expected = [
        (30, 20, 6.5, 0.0, Kind.TRANSLATED, False, True, 0, True),
        (8, 9, nan, nan, Kind.NATIVE, True, False, 0, True),
        (8, 8, nan, nan, Kind.ENGLISH, False, True, 0, True),
        (8, 8, nan, nan, Kind.NONE, False, False, 0, True),
        (8, 8, nan, nan, Kind.TRANSLATED, True, True, 0, True),
        (8, 8, nan, 1e38, Kind.TRANSLATED, False, True, 0, True),
        (8, 8, 5.25, 0.5, Kind.TRANSLATED, False, True, 0, True),
    ]
    assert survey.rows.tobytes() == np.array(expected, ROW).tobytes()
    assert survey.bad == []


def test_a_caption_that_is_a_list_is_a_bad_sample(tmp_path):
    """Of the record, whatever the picture is; the rest of it is seen as ever."""
    source = Source(tmp_path, (png(), PAIR | dict(caption_ru=["щи", "суп"])), (b"", PAIR | dict(caption_en=["soup"])))
    survey = take_survey(source, SURVEYOR)
    assert survey.rows["bad"].tolist() == [Bad.SAMPLE, Bad.SAMPLE]
    assert ["caption_ru holds a list" in survey.bad[0], "caption_en holds a list" in survey.bad[1]] == [True, True]


def test_seventeen_bytes_a_sample():
    assert ROW.itemsize == 17


def damaged(size: bytes) -> bytes:
    """A PNG whose header promises that many pixels."""
    data = bytearray(png())
    data[16:24] = size
    return bytes(data)


def test_bad_samples_are_named_and_left_at_zero(tmp_path):
    source = Source(
        tmp_path,
        BadSample("a.tar: sample 0: the record is not JSON"),
        (png(), PAIR),
        (b"GIF89a??", PAIR),
        (png()[:20], PAIR),
        (damaged(b"\xff" * 8), PAIR),
        (damaged(b"\0\1\0\0\0\0\0\1"), PAIR),
    )
    survey = take_survey(source, SURVEYOR)
    assert survey.rows["bad"].tolist() == [Bad.SAMPLE, Bad.NOTHING, *[Bad.IMAGE] * 4]
    assert survey.rows["width"].tolist() == [0, 8, 0, 0, 0, 0]
    assert survey.bad[0] == "a.tar: sample 0: the record is not JSON" and len(survey.bad) == 5
    assert all(f"a.tar: sample {number}: " in survey.bad[number - 1] for number in (2, 3, 4, 5))


def test_captions_in_more_languages_are_counted(tmp_path):
    """Over all parts, and kept with them."""
    surveyor = Surveyor(CaptionRules("ru", more_languages=("en", "uk", "uk", "it")))
    source = Source(tmp_path, (png(), PAIR), (png(), PAIR), (png(), dict(caption_ru="щи", caption_uk="борщ")))
    for _ in range(2):
        assert take_survey(source, surveyor).told == {"en": 2, "uk": 1}
    assert source.reads == [1, 1, 1]


def test_made_once_part_by_part(tmp_path):
    """Kept beside the data; after an interruption only what is missing is read."""
    samples = [(png(size=(number + 1, 5)), PAIR) for number in range(3)]
    broken = Source(tmp_path, *samples, PeaError("2.tar: has vanished"))
    with pytest.raises(PeaError, match="has vanished"):
        take_survey(broken, SURVEYOR)
    source = Source(tmp_path, *samples, BadSample("bad"))
    made = take_survey(source, SURVEYOR)
    assert source.reads == [0, 0, 1, 1]
    again = take_survey(source, SURVEYOR)
    assert source.reads == [0, 0, 1, 1] and again.bad == made.bad == ["bad"]
    assert again.rows.tobytes() == made.rows.tobytes()
    assert made.rows["width"].tolist() == [1, 2, 3, 0]


def test_made_again_when_data_or_rules_change(tmp_path):
    source = Source(tmp_path, (png(), PAIR))
    take_survey(source, SURVEYOR)
    others = [
        dataclasses.replace(SURVEYOR, captions=dataclasses.replace(RULES, cleaning="plain")),
        dataclasses.replace(SURVEYOR, captions=dataclasses.replace(RULES, language="it")),
        dataclasses.replace(SURVEYOR, aesthetic_field="other"),
    ]
    for count, surveyor in enumerate(others, 2):
        take_survey(source, surveyor)
        assert source.reads == [count]
    take_survey(source, dataclasses.replace(SURVEYOR, captions=dataclasses.replace(RULES, variants=9, seed=5)))
    assert source.reads == [4]
    source.stamp = "2"
    take_survey(source, SURVEYOR)
    assert source.reads == [5]


def test_pictures_that_were_mended_or_replaced_are_looked_at_again(tmp_path):
    """Their table is as it was; one that is lost meanwhile changes nothing, so that a run goes on in its order."""
    lines = [json.dumps(PAIR | dict(file_name=f"{number}.png")) + "\n" for number in range(3)]
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    for number, picture in enumerate((png(), b"torn")):
        (tmp_path / f"{number}.png").write_bytes(picture)

    def look() -> tuple[list[int], list[int]]:
        rows = take_survey(ImageFolderSource(str(tmp_path)), SURVEYOR).rows
        return rows["width"].tolist(), rows["bad"].tolist()

    assert look() == ([8, 0, 0], [Bad.NOTHING, Bad.IMAGE, Bad.SAMPLE])
    (tmp_path / "1.png").write_bytes(png(size=(5, 8)))
    assert look() == ([8, 5, 0], [Bad.NOTHING, Bad.NOTHING, Bad.SAMPLE])
    (tmp_path / "2.png").write_bytes(png(size=(6, 8)))
    (tmp_path / "0.png").write_bytes(png(size=(7, 8)))
    assert look() == ([7, 5, 6], [Bad.NOTHING] * 3)
    (tmp_path / "0.png").unlink()
    assert look() == ([7, 5, 6], [Bad.NOTHING] * 3)


def test_a_picture_of_another_size_than_it_had_is_a_bad_sample(tmp_path):
    source = Source(tmp_path, (png(size=(30, 20)), PAIR), (png(), PAIR))
    surveyed = Surveyed(source, take_survey(source, SURVEYOR).rows)
    assert len(surveyed) == 2 and surveyed[0].size() == (30, 20)
    surveyed.rows[0] = surveyed.rows[1]
    with pytest.raises(BadSample, match=r"a\.tar: sample 0: now 30x20 pixels, 8x8 when all were looked at; remove"):
        surveyed[0]


def test_a_kept_file_that_is_damaged_is_made_again(tmp_path):
    source = Source(tmp_path, (png(), PAIR))
    take_survey(source, SURVEYOR)
    (file,) = tmp_path.glob("*.pea_survey")
    for data in (b"", file.read_bytes()[:-3], b"x" * 100):
        file.write_bytes(data)
        assert take_survey(source, SURVEYOR).rows["width"].tolist() == [8]
    assert source.reads == [4]


def test_kept_in_the_cache_folder_where_the_data_cannot_be_written(tmp_path):
    source = Source(tmp_path / "nowhere" / "a", (png(), PAIR))
    (tmp_path / "nowhere").write_text("a file, so that no folder can be made there")
    for _ in range(2):
        take_survey(source, SURVEYOR, cache_dir=str(tmp_path / "cache"))
    assert source.reads == [1]
    assert len(list((tmp_path / "cache").rglob("*.pea_survey"))) == 1


def large_image(header: int) -> bytes:
    """A PNG of 200 by 300 pixels of noise, with a header of more than so many bytes."""
    buffer, text = io.BytesIO(), PngInfo()
    text.add_text("comment", "x" * header)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["shard", "folder"])
@pytest.mark.parametrize("header", [10, 2 * HEAD])
def test_of_large_images_the_header_is_read(tmp_path, write_shard, monkeypatch, kind, header):
    image, record = large_image(header), json.dumps(PAIR | dict(file_name="a.png"))
    assert len(image) > 2 * HEAD
    if kind == "shard":
        source: Any = WebDatasetSource(write_shard("a.tar", {"a": {"png": image, "json": record.encode()}}))
    else:
        (tmp_path / "a.png").write_bytes(image)
        (tmp_path / "metadata.jsonl").write_text(record)
        source = ImageFolderSource(str(tmp_path))
    sizes: list[int] = []
    for name in ("read", "read_all"):
        monkeypatch.setattr(storage, name, noted(getattr(storage, name), sizes))
    survey = take_survey(source, SURVEYOR)
    assert survey.rows[["width", "height"]].tolist() == [(200, 300)]
    assert (sum(sizes) < HEAD + 1000) == (header < HEAD)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_sizes_are_those_of_the_upright_picture(tmp_path, kind):
    """So that the bucket of the survey is the one in which training finds it."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (300, 200)).save(buffer, kind, exif=exif)
    survey = take_survey(Source(tmp_path, (buffer.getvalue(), PAIR)), SURVEYOR)
    assert survey.rows[["width", "height"]].tolist() == [(200, 300)]


def noted(read: Callable[..., bytes], sizes: list[int]) -> Callable[..., bytes]:
    def noting(*args: Any) -> bytes:
        data = read(*args)
        sizes.append(len(data))
        return data

    return noting


def test_shards(shard, write_shard, make_sample):
    """Of real shards, one of whose records is no JSON."""
    other = write_shard("b.tar", {"x": make_sample(1, score=2), "y": make_sample(2) | {"json": b"{"}})
    survey = take_survey(WebDatasetSource([shard, other]), SURVEYOR)
    assert len(survey.rows) == 25 and survey.rows["bad"].tolist() == [0] * 24 + [Bad.SAMPLE]
    assert (survey.rows["width"][:24] == 8).all() and survey.rows["aesthetic"][23] == 2
    assert "sample y" in survey.bad[0] and not survey.bad[1:]
    assert {path.suffix for path in pathlib.Path(shard).parent.iterdir()} == {".tar", ".pea_index", ".pea_survey"}
