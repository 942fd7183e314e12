import gzip
import io
import pathlib
import tarfile

import numpy as np
import pytest

from pea_jax.data import tar_headers, tar_index
from pea_jax.data.storage import find_file
from pea_jax.errors import PeaError

LONG = "folder/" + "x" * 150


def build_index(shard) -> np.ndarray:
    return tar_index.build_index(find_file(str(shard)))


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("block", [1024, 1 << 20])
def test_members_lie_where_they_were_written(write_shard, format, block, monkeypatch):
    """Keys with folders and other scripts, several members a sample, and names too long for a plain header."""
    monkeypatch.setattr(tar_index, "_LOCAL_BLOCK", block)
    keys = ["a", "b/c", "y" * 90 + "/" + "z" * 90] if format == tarfile.USTAR_FORMAT else ["a", "ключ", LONG]
    samples = {key: {"PNG": b"1" * 1700 + key.encode(), "seg.txt": b"", "json": key.encode()} for key in keys}
    shard = write_shard("a.tar", samples, format)
    rows, data = build_index(shard), pathlib.Path(shard).read_bytes()
    assert [row["key"].decode() for row in rows] == keys
    for row, members in zip(rows, samples.values(), strict=True):
        for name, extension in (("image", "PNG"), ("record", "json")):
            assert data[row[f"{name}_offset"] :][: row[f"{name}_size"]] == members[extension]


def test_plain_headers_are_read_without_tarfile(write_shard, make_sample, monkeypatch):
    """The same members as tarfile finds, a tar inside the tar among them."""
    inner = write_shard("inner.tar", {f"{n}": make_sample(n) for n in range(9)})
    nested = {"json": b"{}", "png": pathlib.Path(inner).read_bytes()}
    shard = write_shard("a.tar", {f"{n:02d}": make_sample(n) for n in range(40)} | {"nested": nested, "z": nested})
    with tarfile.open(shard) as tar:
        found = [(member.name.encode(), member.offset_data, member.size) for member in tar.getmembers()]
    data = pathlib.Path(shard).read_bytes()
    for block in (512, 4096, 1 << 20):
        read = tar_headers.read_members(lambda offset, size: data[offset : offset + size], len(data), block)
        assert list(zip(read.names, read.offsets, read.sizes, strict=True)) == found, block
    monkeypatch.setattr(tarfile, "open", None)
    assert len(build_index(shard)) == 42


@pytest.mark.parametrize(
    "special",
    [
        dict(name="c.png", type=tarfile.SYMTYPE, linkname="b.png"),
        dict(name="c.png", pax_headers={"comment": "x"}),
        dict(name=LONG + ".txt"),
        dict(name="c.png", uid=1 << 40, gid=1 << 40),
    ],
)
def test_special_members_among_plain_ones(tmp_path, special):
    shard = tmp_path / "a.tar"
    format = tarfile.PAX_FORMAT if "pax_headers" in special else tarfile.GNU_FORMAT
    with tarfile.open(shard, "w", format=format) as tar:
        add(tar, "b.png", b"b" * 600)
        add(tar, data=b"" if "type" in special else b"c" * 600, **special)
        add(tar, "d.png", b"d" * 600)
    data = shard.read_bytes()
    last = build_index(shard)[-1]
    assert last["key"] == b"d"
    assert data[last["image_offset"] :][: last["image_size"]] == b"d" * 600


def test_a_size_in_base_256(tmp_path):
    """Sparse: a member larger than octal digits can say, of which nothing is on the disk."""
    shard, size = tmp_path / "a.tar", 9 << 30
    header = tarfile.TarInfo("big.png")
    header.size = size
    with shard.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.seek(512 + size)
        after = tarfile.TarInfo("big.json")
        file.write(after.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    row = build_index(shard)[0]
    assert (row["image_offset"], row["image_size"], row["record_offset"]) == (512, size, 512 + size + 512)


def test_what_is_no_sample_is_passed_over(tmp_path):
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("folder", "folder/a.png", "folder/._a.png", "README", "folder/a.json"):
            add(tar, name, type=tarfile.DIRTYPE if name == "folder" else tarfile.REGTYPE)
    rows = build_index(shard)
    assert rows["key"].tolist() == [b"folder/a"]


def test_a_member_that_a_sample_lacks_is_minus_one(write_shard):
    samples = {"a": {"png": b"", "json": b""}, "b": {"json": b""}, "c": {"jpg": b"1", "png": b""}}
    rows = build_index(write_shard("a.tar", samples))
    assert rows["image_offset"].tolist() == [512, -1, 2048]  # of two images the first
    assert rows["record_offset"].tolist() == [1024, 1536, -1]


def test_a_cut_anywhere_is_found(tmp_path, write_shard):
    """Of all cuts only those behind the first end-of-archive block leave the shard whole."""
    whole = pathlib.Path(write_shard("a.tar", {key: {"png": b"1" * 700, "json": b"{}"} for key in "ab"}))
    data, cut = whole.read_bytes(), tmp_path / "cut.tar"
    members_end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for size in [*range(0, members_end + 512, 256), members_end - 1, members_end + 511]:
        cut.write_bytes(data[:size])
        with pytest.raises(PeaError, match=r"cut\.tar: (truncated at byte \d+|not a tar file)") as error:
            build_index(cut)
        assert "\n" not in str(error.value)
    cut.write_bytes(data[: members_end + 512])
    assert len(build_index(cut)) == 2


def test_a_cut_names_the_byte(write_shard, tmp_path):
    data = pathlib.Path(write_shard("a.tar", {"a": {"png": b"1" * 700}})).read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:1000])
    with pytest.raises(PeaError, match=r"cut\.tar: truncated at byte 1000: member a\.png ends at 1212"):
        build_index(tmp_path / "cut.tar")


def test_damaged_header(write_shard):
    shard = pathlib.Path(write_shard("a.tar", {"a": {"png": b"1"}, "b": {"png": b"1"}}))
    data = bytearray(shard.read_bytes())
    data[1024:1030] = b"\xff" * 6
    shard.write_bytes(data)
    with pytest.raises(PeaError, match=r"a\.tar: damaged at byte 1024"):
        build_index(shard)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("behind", [0, 1, 17])
def test_tars_joined_by_cat(write_shard, make_sample, tmp_path, format, behind):
    """Wherever in its last record the first of them ends; its members alone were taken, without a word."""
    first = {f"{n:02d}": dict(txt=b"") for n in range(behind)} | {"ключ": make_sample(1)}
    parts = [pathlib.Path(write_shard(f"{i}.tar", samples, format)) for i, samples in enumerate((first, first))]
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(PeaError, match=r"joined.tar: ends at byte \d+, and another tar begins behind: .*concatenate"):
        build_index(joined)


def test_compressed_tar(write_shard, tmp_path):
    data = pathlib.Path(write_shard("a.tar", {"a": {"png": b"1"}})).read_bytes()
    (tmp_path / "b.tar").write_bytes(gzip.compress(data))
    with pytest.raises(PeaError, match=r"b\.tar: a compressed tar has no random access; decompress"):
        build_index(tmp_path / "b.tar")


@pytest.mark.parametrize("fields", [dict(type=tarfile.GNUTYPE_SPARSE), dict(pax_headers={"GNU.sparse.size": "9"})])
def test_sparse_members(tmp_path, fields):
    """Of which a part is there: in the middle of a shard its bytes would be read with those of the next member."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a.json", b"{}")
        add(tar, "a.png", b"0 4 5\n", **fields)
        add(tar, "b.json", bytes(9000))
    with pytest.raises(PeaError, match=r"a\.tar: member a\.png is stored without its zeros; make .* without --sparse"):
        build_index(tmp_path / "a.tar")


def test_foreign_files(tmp_path):
    (tmp_path / "text.tar").write_text("hello " * 200)
    with pytest.raises(PeaError, match=r"text\.tar: not a tar file"):
        build_index(tmp_path / "text.tar")
