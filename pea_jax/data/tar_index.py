"""Where the image and the record of every sample of a tar shard lie, so that nothing is ever unpacked.

Samples are formed as webdataset does: adjacent members whose names agree up to the first dot of the file name.
"""

import tarfile
from collections.abc import Iterator

import numpy as np

from pea_jax.data import storage
from pea_jax.data.storage import File
from pea_jax.data.tar_headers import RECORD, Members, another_behind, read_members
from pea_jax.errors import PeaError

EXTENSIONS = {"image": ("png", "jpg", "jpeg", "webp"), "record": ("json",)}
_LONGEST = 8  # of an extension; more than any that is looked for

# What is read at a time. A local disk is read in steps of some megabytes; members larger than that are skipped. From a
# store each request costs as long as several megabytes take, so a request a header would take hours where reading
# everything once, in large steps, takes minutes.
_LOCAL_BLOCK, _REMOTE_BLOCK = 1 << 22, 1 << 24


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
      PeaError: the shard is missing, compressed, no tar, damaged, truncated or several tars in one, or has sparse
        members or samples of one key in a row.
    """
    _refuse_compressed(shard.path)
    block = _REMOTE_BLOCK if storage.is_remote(shard.path) else _LOCAL_BLOCK
    with storage.open_reader(shard.path) as read:
        members = read_members(read, shard.size, block)
    if members is None:  # long names and the like, or damage that tarfile can name
        found = [(member.name, member.offset_data, member.size) for member in _members(shard) if member.isreg()]
        names = np.array([name.encode("utf-8", "surrogateescape") for name, _, _ in found], "S")
        members = Members(names, *np.array([place for _, *place in found], np.int64).reshape(-1, 2).T)
    return _samples(members, shard.path)


def _samples(members: Members, shard: str) -> np.ndarray:
    keys, extensions, valid = _split(members.names)
    keys, extensions, offsets, sizes = (array[valid] for array in (keys, extensions, members.offsets, members.sizes))
    starts = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    sample = np.cumsum(starts) - 1
    rows = np.zeros(int(starts.sum()), row_dtype(keys.dtype.itemsize))
    rows["key"] = keys[starts]
    for name, known in EXTENSIONS.items():
        kind = np.flatnonzero(np.isin(extensions, [extension.encode() for extension in known]))
        which, first, count = np.unique(sample[kind], return_index=True, return_counts=True)
        if name == "record" and count.max(initial=0) > 1:  # of pictures a sample may have another kind as well
            key = rows["key"][which[count.argmax()]].decode(errors="backslashreplace")
            raise PeaError(f"{shard}: {count.max()} samples in a row have the key {key}; give each its own")
        rows[f"{name}_offset"] = -1
        rows[f"{name}_offset"][which] = offsets[kind[first]]
        rows[f"{name}_size"][which] = sizes[kind[first]]
    return rows


def _split(names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[M] keys, [M] extensions in small letters, and [M] which names have both.

    A key reaches to the first dot behind the last slash, where there must be something between the two.
    """
    width = names.dtype.itemsize
    letters, place = names.view(np.uint8).reshape(-1, width), np.arange(width)
    slash = np.where(letters == ord("/"), place, -1).max(1, keepdims=True)
    dot = np.where((letters == ord(".")) & (place > slash), place, width).min(1, keepdims=True)
    length = (letters != 0).sum(1, keepdims=True)
    valid = (dot > slash + 1) & (dot < length - 1)
    keys = np.where(place < dot, letters, 0).astype(np.uint8).view(names.dtype)[:, 0]
    behind = np.minimum(dot + 1 + np.arange(_LONGEST), width)
    ends = np.take_along_axis(np.pad(letters, ((0, 0), (0, 1))), behind, 1)
    return keys, np.char.lower(np.ascontiguousarray(ends).view(f"S{_LONGEST}")[:, 0]), valid[:, 0]


def _members(shard: File) -> Iterator[tarfile.TarInfo]:
    with storage.open_stream(shard.path) as stream:
        tar = _open(stream, shard.path)
        while (member := _next(tar, shard.path)) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every one of them
            if member.issparse():  # its zeros were left out, so what lies there is not what the file holds
                advice = "make the tar again without --sparse"
                raise PeaError(f"{shard.path}: member {member.name} is stored without its zeros; {advice}")
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
    record = storage.read(shard.path, tar.offset, RECORD)
    if len(record) < tarfile.BLOCKSIZE:
        raise _truncated(shard.path, shard.size, "the end-of-archive blocks are missing")
    if any(record[: tarfile.BLOCKSIZE]):
        advice = "no valid member header there; fetch the shard again"
        raise PeaError(f"{shard.path}: damaged at byte {tar.offset}: {advice}")
    if another_behind(record):
        advice = "more tars than one, joined; keep each in a file of its own, or join them with tar --concatenate"
        raise PeaError(f"{shard.path}: ends at byte {tar.offset}, and another tar begins behind: {advice}")


def _truncated(shard: str, byte: int, reason: str) -> PeaError:
    return PeaError(f"{shard}: truncated at byte {byte}: {reason}; fetch the shard again")
