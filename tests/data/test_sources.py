import pickle

import pytest

from pea_jax.data.sources import open_source
from pea_jax.data.to_tfds import convert
from pea_jax.errors import PeaError


@pytest.fixture
def folder(tmp_path, make_sample):
    """One image with a table."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.png").write_bytes(make_sample(9)["png"])
    (tmp_path / "folder" / "metadata.jsonl").write_text('{"file_name": "x.png"}\n')
    return str(tmp_path / "folder")


def test_sets_of_every_kind_one_after_the_other(write_shard, shard, make_sample, folder, tmp_path):
    other = write_shard("b-0.tar", {"b0": make_sample(1), "b1": make_sample(2)})
    converted = str(tmp_path / "converted")
    convert({"train": other, "validation": shard}, converted)
    (tmp_path / "texts.jsonl").write_text('{"caption_ru": "щи"}\n')
    names = [f"{tmp_path}/b-{{0..0}}.tar", folder, shard, f"{converted}:validation", converted]
    source = open_source(" ".join([*names, str(tmp_path / "texts.jsonl")]))
    assert len(source) == 2 + 1 + 23 + 23 + 2 + 1
    assert (source[51].key, source[51].record, source[51].has_picture) == ("row 1", {"caption_ru": "щи"}, False)
    keys = ["b0", "b1", "x.png"] + [f"{number:03d}" for number in range(23)] * 2 + ["b0", "b1"]
    assert [sample.key for sample in (source[number] for number in range(51))] == keys
    assert source[-2].key == "b1" and [part.count for part in source.parts] == [2, 1, 23, 23, 2, 1]
    assert pickle.loads(pickle.dumps(source))[30].caption("ru") == "яблоко 4"
    with pytest.raises(IndexError):
        source[52]


def test_one_set_is_not_wrapped(shard, folder):
    assert type(open_source(shard)).__name__ == "WebDatasetSource"
    assert type(open_source([folder])).__name__ == "ImageFolderSource"


def test_whole_names_of_shards_in_braces(write_shard, shard, make_sample):
    other = write_shard("b.tar", {"b0": make_sample(1)})
    assert len(open_source(f"{{{shard},{other}}}")) == 24


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("", "no data given"),
        ("/nowhere", "/nowhere: no such folder"),
        ("/nowhere.jsonl", r"/nowhere\.jsonl: no such file"),
        (__file__, r"not a tar shard .*, a table .* or a folder"),
    ],
)
def test_what_is_no_source(patterns, message):
    with pytest.raises(PeaError, match=message):
        open_source(patterns)
