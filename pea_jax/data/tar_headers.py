"""The headers of plain tar members, parsed by the thousand: what makes a million members a matter of seconds.

A header's place follows from the size in the one before, so a block of the file is read, every header in it parsed
at once, and the chain followed through the parsed sizes. What is not plain (long names, pax records, links, damage) is
left to `tarfile`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

_BLOCK = 512
_OCTAL = 8 ** np.arange(10, -1, -1, dtype=np.int64)  # 11 digits


@dataclasses.dataclass(frozen=True)
class Members:
    """Regular members in the order of the file."""

    names: list[bytes]
    offsets: list[int]  # of the data
    sizes: list[int]


def read_members(read: Callable[[int, int], bytes], size: int, block: int) -> Members | None:
    """All members of a tar, None if it holds anything but plain files and folders or is damaged.

    Args:
      read: (offset, size) to bytes.
      size: of the tar.
      block: bytes to read at a time; members that reach beyond them are skipped, not read.
    """
    members, position = Members([], [], []), 0
    while position + _BLOCK <= size:
        data = np.frombuffer(read(position, block), np.uint8)
        headers = data[: len(data) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
        if not len(headers):
            return None
        rows, following = _chain(headers)
        if len(rows):
            _append(members, headers[rows], position + (rows + 1) * _BLOCK)
        if following < len(headers):  # no plain header there
            return members if not headers[following].any() else None
        position += following * _BLOCK
    return None  # without the end-of-archive block


def _chain(headers: np.ndarray) -> tuple[np.ndarray, int]:
    """The rows that are headers, counted from the one in row 0, and the row where the next one must be."""
    plain = np.flatnonzero(_plain(headers))
    after = np.full(len(headers), -1)
    blocks = np.where(headers[plain, 156] == ord("5"), 0, -(-_size(headers[plain]) // _BLOCK))
    after[plain] = plain + 1 + blocks
    jumps, rows, row = after.tolist(), [], 0
    while row < len(jumps) and jumps[row] > 0:
        rows.append(row)
        row = jumps[row]
    return np.array(rows, np.int64), row


def _plain(headers: np.ndarray) -> np.ndarray:
    """Which blocks are the header of a regular file or a folder with a size in octal and a right checksum."""
    possible = np.flatnonzero((headers[:, 257:262] == np.frombuffer(b"ustar", np.uint8)).all(1))
    found = headers[possible]
    digits = found[:, 124:135]
    plain = np.isin(found[:, 156], [0, ord("0"), ord("5")]) & (digits >= 48).all(1) & (digits < 56).all(1)
    plain &= np.isin(found[:, 135], [0, 32])
    stored = found[:, 148:154].astype(np.int64) - 48
    plain &= (stored >= 0).all(1) & (stored < 8).all(1)
    sums = found.sum(1, dtype=np.int64) - found[:, 148:156].sum(1, dtype=np.int64) + 8 * 32
    plain &= sums == stored @ _OCTAL[-6:]
    old_folder = (found[:, 156] == 0) & (found[:, 99] == ord("/"))  # its name may end there
    result = np.zeros(len(headers), bool)
    result[possible] = plain & ~old_folder
    return result


def _size(headers: np.ndarray) -> np.ndarray:
    return (headers[:, 124:135].astype(np.int64) - 48) @ _OCTAL


def _append(members: Members, headers: np.ndarray, offsets: np.ndarray) -> None:
    regular = headers[:, 156] != ord("5")
    headers = headers[regular]
    members.names.extend(_names(headers))
    members.offsets.extend(offsets[regular].tolist())
    members.sizes.extend(_size(headers).tolist())


def _names(headers: np.ndarray) -> list[bytes]:
    names = _texts(headers[:, :100])
    if not headers[:, 345].any():
        return names
    prefixes = _texts(headers[:, 345:500])
    return [prefix + b"/" + name if prefix else name for prefix, name in zip(prefixes, names, strict=True)]


def _texts(fields: np.ndarray) -> list[bytes]:
    texts = np.ascontiguousarray(fields).view(f"S{fields.shape[1]}")[:, 0].tolist()
    return [text.partition(b"\0")[0] for text in texts]
