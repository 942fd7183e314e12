import json
import pickle

import pyarrow
import pyarrow.parquet
import pytest

from pea_jax.data.text_table import TextTableSource
from pea_jax.data.to_tfds import convert
from pea_jax.errors import BadSample, PeaError

ROWS = [dict(caption_ru="щи", caption_en="soup"), dict(caption_ru="кот", native=True)]


def write_lines(path, rows) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def test_rows_are_samples_without_a_picture(tmp_path):
    path = write_lines(tmp_path / "pairs.jsonl", ROWS)
    source = pickle.loads(pickle.dumps(TextTableSource(path)))
    found = [source[0], source.head(-1)]
    assert [(sample.shard, sample.key, sample.record) for sample in found] == [
        (path, "row 1", ROWS[0]),
        (path, "row 2", ROWS[1]),
    ]
    assert not any(sample.has_picture for sample in found)
    assert [(part.path, part.count) for part in source.parts] == [(path, 2)]
    with pytest.raises(IndexError):
        source[2]


def test_parquet(tmp_path):
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[::-1]), path)
    source = TextTableSource(str(path), str(tmp_path / "cache"))
    assert [source[n].record for n in range(2)] == [ROWS[1], dict(caption_ru="щи", native=None)]
    assert source.parts[0].path == str(path)


def test_a_table_of_pictures_is_not_read_as_texts(tmp_path):
    source = TextTableSource(write_lines(tmp_path / "metadata.jsonl", [dict(ROWS[0], file_name="1.png")]))
    with pytest.raises(BadSample, match=r"metadata\.jsonl: row 1: names a picture, .* name the folder"):
        source[0]


@pytest.mark.parametrize(
    ("name", "value"), [("image", dict(bytes=b"\x89PNG", path="1.png")), ("jpg", b"\xff\xd8"), ("hash", b"\x01")]
)
def test_pictures_in_a_table_are_not_left_out_without_a_word(tmp_path, name, value):
    path = tmp_path / "train-00000.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROWS[0] | {name: value}]), path)
    if name == "hash":
        assert TextTableSource(str(path), str(tmp_path / "cache"))[0].record == ROWS[0]
        return
    with pytest.raises(PeaError, match=rf"00000\.parquet: holds pictures \({name}\), .*; write them as files"):
        TextTableSource(str(path), str(tmp_path / "cache"))


def test_texts_do_not_go_into_a_folder_of_pictures(tmp_path):
    path = write_lines(tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(PeaError, match=r"pairs\.jsonl: texts without pictures; leave them out"):
        convert({"train": path}, str(tmp_path / "out"))
