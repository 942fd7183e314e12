import json
import pathlib
import pickle
import sys
import unicodedata

import pyarrow
import pyarrow.parquet
import pytest

from pea_jax.data.image_folder import ImageFolderSource
from pea_jax.data.parquet_rows import as_lines
from pea_jax.data.storage import find_file
from pea_jax.errors import BadSample, PeaError


@pytest.fixture
def image(make_sample):
    return make_sample(5)["png"]


@pytest.fixture
def folder(tmp_path, image):
    """Images in two subfolders, a table in each, the first of them with an image a folder further down."""
    for name in ("cats/1.png", "cats/more/2.png", "dogs/3.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image + name.encode())
    rows = [{"file_name": "1.png", "caption_ru": "кот"}, {"file_name": "more/2.png", "caption_ru": "кошка", "n": 1}]
    write_lines(tmp_path / "set" / "cats", rows)
    table = pyarrow.table({"file_name": ["3.png"], "caption_ru": ["пёс"], "score": [0.1], "thumbnail": [b"\xff"]})
    pyarrow.parquet.write_table(table, tmp_path / "set" / "dogs" / "metadata.parquet")
    return str(tmp_path / "set")


def write_lines(folder: pathlib.Path, rows: list, end: str = "\n") -> None:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "metadata.jsonl").write_text(text + end)


def test_samples_of_all_subfolders(folder, image, tmp_path):
    source = pickle.loads(pickle.dumps(ImageFolderSource(folder, str(tmp_path / "cache"))))
    samples = [source[number] for number in range(len(source))]
    assert [(sample.key, sample.record) for sample in samples] == [
        ("1.png", {"caption_ru": "кот"}),
        ("more/2.png", {"caption_ru": "кошка", "n": 1}),
        ("3.png", {"caption_ru": "пёс", "score": 0.1}),
    ]
    assert [sample.image for sample in samples] == [
        image + f.encode() for f in ("cats/1.png", "cats/more/2.png", "dogs/3.png")
    ]
    assert [sample.shard for sample in samples[1:]] == [
        f"{folder}/cats/metadata.jsonl",
        f"{folder}/dogs/metadata.parquet",
    ]
    assert source[-1].key == "3.png"
    assert [(part.path, part.count) for part in source.parts] == [(samples[0].shard, 2), (samples[2].shard, 1)]
    with pytest.raises(IndexError):
        source[3]


@pytest.mark.parametrize("end", ["", "\n", "\n\n \n"])
def test_the_end_of_the_last_line(tmp_path, image, end):
    (tmp_path / "1.png").write_bytes(image)
    write_lines(tmp_path, [{"file_name": "1.png"}] * 3, end)
    source = ImageFolderSource(str(tmp_path))
    assert len(source) == 3 and source[2].image == image


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file_name": "../1.png"}, r"file_name '\.\./1\.png' may lead out of the folder"),
        ({"file_name": "a/../../1.png"}, "may lead out of the folder"),
        ({"file_name": "/etc/passwd"}, "may lead out of the folder"),
        ({"file_name": "gs://bucket/1.png"}, "may lead out of the folder"),
        ({"file_name": "a\0.png"}, "may lead out of the folder"),
        (r'{"file_name": "\ud83d.png"}', "cannot be the name of a file"),
        ({"file_name": "none.png"}, r"none\.png: cannot be read \(No such file"),
        ({"file_name": "."}, "cannot be read"),
        ({"file_name": 3}, "no text in column file_name"),
        ({"caption_ru": "кот"}, "no text in column file_name"),
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_rows_that_are_refused(tmp_path, image, row, message):
    (tmp_path / "1.png").write_bytes(image)
    write_lines(tmp_path, [row, {"file_name": "1.png"}])
    source = ImageFolderSource(str(tmp_path))
    with pytest.raises(BadSample, match=rf"metadata\.jsonl: row 1: .*{message}") as error:
        source[0]
    assert "\n" not in str(error.value)
    assert source[1].image == image


@pytest.mark.parametrize(("disk", "table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_of_files_that_came_from_a_mac(tmp_path, image, disk, table):
    name = "й/한글 ế.png"
    path = tmp_path / unicodedata.normalize(disk, name)
    path.parent.mkdir()
    path.write_bytes(image)
    write_lines(tmp_path, [{"file_name": unicodedata.normalize(table, name)}, {"file_name": "й.png"}])
    source = ImageFolderSource(str(tmp_path))
    assert source[0].image == image and source.head(0).size() == source[0].size()
    with pytest.raises(BadSample, match=r"row 2: .*/й\.png: cannot be read"):
        source[1]


def test_subfolders_behind_links_are_read_once(folder, tmp_path):
    (tmp_path / "links").mkdir()
    for name, target in (("a", "set/cats"), ("b", "set"), ("c", "links")):
        (tmp_path / "links" / name).symlink_to(tmp_path / target)
    source = ImageFolderSource(str(tmp_path / "links"), str(tmp_path / "cache"))
    assert [source[number].key for number in range(len(source))] == ["1.png", "more/2.png", "3.png"]


def test_two_tables_of_one_folder_are_refused(folder):
    (pathlib.Path(folder) / "dogs" / "metadata.jsonl").write_text('{"file_name": "3.png"}\n')
    with pytest.raises(PeaError, match=r"dogs: holds metadata\.jsonl and metadata\.parquet, .*; leave one of them"):
        ImageFolderSource(folder)


def test_a_folder_without_a_table(tmp_path):
    with pytest.raises(PeaError, match=r"no metadata\.jsonl or metadata\.parquet in this folder"):
        ImageFolderSource(str(tmp_path))


def test_rows_of_a_table_are_written_once_for_each_version(folder, tmp_path):
    table, cache = f"{folder}/dogs/metadata.parquet", str(tmp_path / "cache")
    first = as_lines(find_file(table), cache)
    before = pathlib.Path(first).stat().st_mtime_ns
    assert as_lines(find_file(table), cache) == first and pathlib.Path(first).stat().st_mtime_ns == before
    pyarrow.parquet.write_table(pyarrow.table({"file_name": ["3.png", "4.png"]}), table)
    assert as_lines(find_file(table), cache) != first
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".jsonl", ".jsonl"]


def test_tables_that_cannot_be_read(folder, tmp_path, monkeypatch):
    table = pathlib.Path(folder) / "dogs" / "metadata.parquet"
    with pytest.raises(PeaError, match=r"its rows cannot be kept in .*; give a cache folder"):
        as_lines(find_file(str(table)), f"{folder}/cats/1.png")
    cyrillic = pyarrow.array([b"\xea\xee\xf2"], pyarrow.binary())  # in Windows-1251
    texts = pyarrow.StringArray.from_buffers(1, *cyrillic.buffers()[1:])
    pyarrow.parquet.write_table(pyarrow.table({"file_name": ["3.png"], "caption_ru": texts}), table)
    with pytest.raises(PeaError, match=r"metadata\.parquet: has a text that is not UTF-8 .*; write the table again"):
        as_lines(find_file(str(table)), str(tmp_path / "cache"))
    table.write_bytes(table.read_bytes()[:-9])
    with pytest.raises(PeaError, match=r"metadata\.parquet: not a whole parquet table"):
        ImageFolderSource(folder, str(tmp_path / "cache"))
    pyarrow.parquet.write_table(pyarrow.table({"file_name": ["3.png"] * 1000}), table, use_dictionary=False)
    table.write_bytes(table.read_bytes()[:30] + bytes(20) + table.read_bytes()[50:])
    with pytest.raises(PeaError, match=r"metadata\.parquet: cannot be read \(.*snappy.*\); copy the table again"):
        ImageFolderSource(folder, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PeaError, match=r"metadata\.parquet: reading parquet needs pyarrow; pip install"):
        ImageFolderSource(folder, str(tmp_path / "cache"))
