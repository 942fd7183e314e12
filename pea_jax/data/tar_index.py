"""Where every member of a tar shard lies, so that a sample is read with `os.pread` and nothing is unpacked.

Samples are formed as webdataset does: adjacent members whose names agree up to the first dot of the file name.
"""

import dataclasses
import os
import re
import tarfile
from collections.abc import Iterator

import numpy as np

from pea_jax.errors import PeaError

_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")  # key, extension
_BLOCK = tarfile.BLOCKSIZE


@dataclasses.dataclass(frozen=True)
class TarIndex:
    """The M members of the N samples of one shard, as arrays."""

    extensions: list[str]  # the kinds of member that occur, e.g. ["json", "png"]
    kind: np.ndarray  # [M] uint16, into `extensions`
    offset: np.ndarray  # [M] int64
    size: np.ndarray  # [M] uint32
    first: np.ndarray  # [N + 1] int64: sample n has the members first[n] up to first[n + 1]
    key_bytes: np.ndarray  # [K] uint8, all keys in UTF-8
    key_end: np.ndarray  # [N] int64, where each ends

    def find(self, extensions: tuple[str, ...]) -> np.ndarray:
        """[N] int64: each sample's first member with one of these extensions, -1 where there is none."""
        kinds = [number for number, extension in enumerate(self.extensions) if extension in extensions]
        members = np.flatnonzero(np.isin(self.kind, kinds))
        samples, where = np.unique(np.searchsorted(self.first, members, side="right") - 1, return_index=True)
        found = np.full(len(self.key_end), -1)
        found[samples] = members[where]
        return found

    def key(self, sample: int) -> str:
        return key_at(sample, self.key_bytes, self.key_end)


def key_at(sample: int, key_bytes: np.ndarray, key_end: np.ndarray) -> str:
    """The key of a sample, from the bytes of all keys and where each ends."""
    start = key_end[sample - 1] if sample else 0
    return key_bytes[start : key_end[sample]].tobytes().decode()


def build_index(shard: str) -> TarIndex:
    """Reads every header of a shard once.

    Raises:
      PeaError: the shard is missing, compressed, no tar, damaged or truncated.
    """
    extensions: dict[str, int] = {}
    keys: list[str] = []
    kind: list[int] = []
    first, offset, size = [], [], []
    for member in _members(shard):
        name = _MEMBER.fullmatch(member.name)
        if not member.isreg() or name is None:
            continue
        if not keys or keys[-1] != name[1]:
            keys.append(name[1])
            first.append(len(kind))
        kind.append(extensions.setdefault(name[2].lower(), len(extensions)))
        offset.append(member.offset_data)
        size.append(member.size)
    encoded = [key.encode() for key in keys]
    return TarIndex(
        extensions=list(extensions),
        kind=np.array(kind, np.uint16),
        offset=np.array(offset, np.int64),
        size=np.array(size, np.uint32),
        first=np.array([*first, len(kind)], np.int64),
        key_bytes=np.frombuffer(b"".join(encoded), np.uint8),
        key_end=np.cumsum([len(key) for key in encoded], dtype=np.int64),
    )


def _members(shard: str) -> Iterator[tarfile.TarInfo]:
    end = shard_stat(shard).st_size
    with _open(shard) as tar:
        while (member := _next(tar, shard)) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every one of them
            if member.offset_data + member.size > end:
                raise _truncated(shard, end, f"member {member.name} ends at {member.offset_data + member.size}")
            yield member
        _check_end(tar, shard, end)


def shard_stat(shard: str) -> os.stat_result:
    try:
        return os.stat(shard)
    except OSError as error:
        raise PeaError(f"{shard}: cannot be read ({error.strerror})") from error


def _open(shard: str) -> tarfile.TarFile:
    with open(shard, "rb") as file:
        start = file.read(6)
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise PeaError(f"{shard}: a compressed tar has no random access; decompress it first (e.g. with gunzip)")
    try:
        return tarfile.open(shard, "r:")
    except tarfile.ReadError as error:
        raise PeaError(f"{shard}: not a tar file ({error})") from error


def _next(tar: tarfile.TarFile, shard: str) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except tarfile.ReadError as error:
        raise _truncated(shard, tar.offset, str(error)) from error


def _check_end(tar: tarfile.TarFile, shard: str, size: int) -> None:
    """tarfile takes a damaged header, and a file cut between two members, for the end of the archive."""
    with open(shard, "rb") as file:
        block = os.pread(file.fileno(), _BLOCK, tar.offset)
    if len(block) < _BLOCK:
        raise _truncated(shard, size, "the end-of-archive blocks are missing")
    if any(block):
        raise PeaError(f"{shard}: damaged at byte {tar.offset}: no valid member header there; fetch the shard again")


def _truncated(shard: str, byte: int, reason: str) -> PeaError:
    return PeaError(f"{shard}: truncated at byte {byte}: {reason}; fetch the shard again")
