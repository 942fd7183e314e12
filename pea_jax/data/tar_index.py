"""Where the image and the record of every sample of a tar shard lie, so that nothing is ever unpacked.

Samples are formed as webdataset does: adjacent members whose names agree up to the first dot of the file name.
"""

import os
import re
import tarfile
from collections.abc import Iterator

import numpy as np

from pea_jax.data import storage
from pea_jax.data.storage import File
from pea_jax.data.tar_headers import Members, read_members
from pea_jax.errors import PeaError

IMAGE = (b"png", b"jpg", b"jpeg", b"webp")
RECORD = (b"json",)
_PLACES = {extension: 0 for extension in IMAGE} | {extension: 1 for extension in RECORD}
_MEMBER = re.compile(rb"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)  # key, extension

# What is read at a time. A local disk is fastest in steps of a megabyte; members larger than that are skipped. From a
# store each request costs as long as several megabytes take, so a request a header would take hours where reading
# everything once, in large steps, takes minutes.
_LOCAL_BLOCK, _REMOTE_BLOCK = 1 << 20, 1 << 24


def row_dtype(key_size: int) -> np.dtype:
    """One sample of an index; an offset of -1 stands for a member that it lacks."""
    return np.dtype(
        [
            ("image_offset", "<i8"),
            ("image_size", "<i8"),
            ("record_offset", "<i8"),
            ("record_size", "<i8"),
            ("key", f"S{max(key_size, 1)}"),  # file names hold no zero bytes, which numpy strips
        ]
    )


def build_index(shard: File) -> np.ndarray:
    """[N] of `row_dtype`: the samples of a shard, in its order.

    Raises:
      PeaError: the shard is missing, compressed, no tar, damaged or truncated.
    """
    _refuse_compressed(shard.path)
    block = _REMOTE_BLOCK if storage.is_remote(shard.path) else _LOCAL_BLOCK
    with storage.open_reader(shard.path) as read:
        members = read_members(read, shard.size, block)
    if members is None:  # long names and the like, or damage that tarfile can name
        members = Members([], [], [])
        for member in _members(shard):
            if member.isreg():
                members.names.append(os.fsencode(member.name))
                members.offsets.append(member.offset_data)
                members.sizes.append(member.size)
    return _samples(members)


def _samples(members: Members) -> np.ndarray:
    keys: list[bytes] = []
    places: list[list[int]] = []
    for name, offset, size in zip(members.names, members.offsets, members.sizes, strict=True):
        if (match := _MEMBER.fullmatch(name)) is None:
            continue
        key, extension = match.groups()
        if not keys or keys[-1] != key:
            keys.append(key)
            places.append([-1, 0, -1, 0])
        place = _PLACES.get(extension.lower())
        if place is not None and places[-1][2 * place] < 0:
            places[-1][2 * place : 2 * place + 2] = offset, size
    rows = np.empty(len(keys), row_dtype(max(map(len, keys), default=0)))
    columns = np.array(places, np.int64).reshape(-1, 4)
    for number, field in enumerate(("image_offset", "image_size", "record_offset", "record_size")):
        rows[field] = columns[:, number]
    rows["key"] = keys
    return rows


def _members(shard: File) -> Iterator[tarfile.TarInfo]:
    with storage.open_stream(shard.path) as stream:
        tar = _open(stream, shard.path)
        while (member := _next(tar, shard.path)) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every one of them
            if member.offset_data + member.size > shard.size:
                end = member.offset_data + member.size
                raise _truncated(shard.path, shard.size, f"member {member.name} ends at {end}")
            yield member
        _check_end(tar, shard)


def _refuse_compressed(shard: str) -> None:
    if storage.read(shard, 0, 6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise PeaError(f"{shard}: a compressed tar has no random access; decompress it first (e.g. with gunzip)")


def _open(stream, shard: str) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape")
    except tarfile.ReadError as error:
        raise PeaError(f"{shard}: not a tar file ({error})") from error


def _next(tar: tarfile.TarFile, shard: str) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except tarfile.ReadError as error:
        raise _truncated(shard, tar.offset, str(error)) from error


def _check_end(tar: tarfile.TarFile, shard: File) -> None:
    """tarfile takes a damaged header, and a file cut between two members, for the end of the archive."""
    block = storage.read(shard.path, tar.offset, tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _truncated(shard.path, shard.size, "the end-of-archive blocks are missing")
    if any(block):
        advice = "no valid member header there; fetch the shard again"
        raise PeaError(f"{shard.path}: damaged at byte {tar.offset}: {advice}")


def _truncated(shard: str, byte: int, reason: str) -> PeaError:
    return PeaError(f"{shard}: truncated at byte {byte}: {reason}; fetch the shard again")
