import gzip
import io
import pathlib
import tarfile

import pytest

from pea_jax.data.tar_index import build_index
from pea_jax.errors import PeaError

LONG = "folder/" + "x" * 150


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_finds_them(write_shard, format):
    """Keys with folders and other scripts, several members a sample, and names too long for a plain header."""
    keys = ["a", "b/c"] if format == tarfile.USTAR_FORMAT else ["a", "ключ", LONG]
    samples = {key: {"PNG": b"1" * 700, "json": key.encode(), "seg.txt": b""} for key in keys}
    shard = write_shard("a.tar", samples, format)
    index = build_index(shard)
    data = pathlib.Path(shard).read_bytes()
    assert [index.key(number) for number in range(len(keys))] == keys
    for number, (key, members) in enumerate(samples.items()):
        for extension, expected in members.items():
            member = index.find((extension.lower(),))[number]
            assert data[index.offset[member] :][: index.size[member]] == expected, (key, extension)


def test_what_is_no_sample_is_passed_over(tmp_path):
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("folder", "folder/a.png", "folder/._a.png", "README", "folder/a.json"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name == "folder" else tarfile.REGTYPE
            tar.addfile(member, io.BytesIO())
    index = build_index(str(shard))
    assert index.key(0) == "folder/a" and len(index.key_end) == 1
    assert index.extensions == ["png", "json"]


def test_a_member_that_a_sample_lacks_is_minus_one(write_shard):
    shard = write_shard("a.tar", {"a": {"png": b"", "json": b""}, "b": {"json": b""}, "c": {"jpg": b"", "png": b""}})
    index = build_index(shard)
    assert index.find(("png", "jpg")).tolist() == [0, -1, 3]
    assert index.find(("json",)).tolist() == [1, 2, -1]
    assert index.find(("txt",)).tolist() == [-1, -1, -1]


def test_a_cut_anywhere_is_found(tmp_path, write_shard):
    """Of all cuts only those behind the first end-of-archive block leave the shard whole."""
    whole = pathlib.Path(write_shard("a.tar", {key: {"png": b"1" * 700, "json": b"{}"} for key in "ab"}))
    data, cut = whole.read_bytes(), tmp_path / "cut.tar"
    members_end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for size in [*range(0, members_end + 512, 256), members_end - 1, members_end + 511]:
        cut.write_bytes(data[:size])
        with pytest.raises(PeaError, match=r"cut\.tar: (truncated at byte \d+|not a tar file)") as error:
            build_index(str(cut))
        assert "\n" not in str(error.value)
    cut.write_bytes(data[: members_end + 512])
    assert len(build_index(str(cut)).key_end) == 2


def test_a_cut_names_the_byte(write_shard, tmp_path):
    data = pathlib.Path(write_shard("a.tar", {"a": {"png": b"1" * 700}})).read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:1000])
    with pytest.raises(PeaError, match=r"cut\.tar: truncated at byte 1000: member a\.png ends at 1212"):
        build_index(str(tmp_path / "cut.tar"))


def test_damaged_header(write_shard):
    shard = pathlib.Path(write_shard("a.tar", {"a": {"png": b"1"}, "b": {"png": b"1"}}))
    data = bytearray(shard.read_bytes())
    data[1024:1030] = b"\xff" * 6
    shard.write_bytes(data)
    with pytest.raises(PeaError, match=r"a\.tar: damaged at byte 1024"):
        build_index(str(shard))


def test_compressed_tar(write_shard, tmp_path):
    data = pathlib.Path(write_shard("a.tar", {"a": {"png": b"1"}})).read_bytes()
    (tmp_path / "b.tar").write_bytes(gzip.compress(data))
    with pytest.raises(PeaError, match=r"b\.tar: a compressed tar has no random access; decompress"):
        build_index(str(tmp_path / "b.tar"))


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(PeaError, match=r"none\.tar: cannot be read \(No such file"):
        build_index(str(tmp_path / "none.tar"))
    (tmp_path / "text.tar").write_text("hello " * 200)
    with pytest.raises(PeaError, match=r"text\.tar: not a tar file"):
        build_index(str(tmp_path / "text.tar"))
