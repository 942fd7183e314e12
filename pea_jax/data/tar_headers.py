"""The headers of plain tar members, parsed by the thousand: what makes a million members a matter of seconds.

A header's place follows from the size in the one before, so a block of the file is read, every header in it parsed
at once, and the chain followed through the parsed sizes. What is not plain (long names, pax records, links, damage) is
left to `tarfile`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

_BLOCK = 512
RECORD = 20 * _BLOCK  # tar fills the last one with zeros
_CHECKSUM = np.repeat(np.array([0, 1, 0], np.uint8), (4, 8, 4))  # where it lies, in bytes 144 to 160


@dataclasses.dataclass(frozen=True)
class Members:
    """M regular members in the order of the file."""

    names: np.ndarray  # [M] bytes
    offsets: np.ndarray  # [M] int64, of the data
    sizes: np.ndarray  # [M] int64


def read_members(read: Callable[[int, int], bytes | memoryview], size: int, block: int) -> Members | None:
    """All members of a tar, None if it holds anything but plain files and folders, is damaged, or is not the only one.

    Args:
      read: (offset, size) to bytes, which may change at the next call.
      size: of the tar.
      block: bytes to read at a time; members that reach beyond them are skipped, not read.
    """
    found, position = [], 0
    while position + _BLOCK <= size:
        data = np.frombuffer(read(position, block), np.uint8)
        headers = data[: len(data) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
        if not len(headers):
            return None
        rows, sizes, following = _chain(headers)
        regular = headers[rows, 156] != ord("5")
        rows, sizes = rows[regular], sizes[regular]
        found.append(Members(_names(headers, rows), position + (rows + 1) * _BLOCK, sizes))
        position += following * _BLOCK
        if following < len(headers):  # no plain header there
            return None if headers[following].any() or another_behind(read(position, RECORD)) else _joined(found)
    return None  # without the end-of-archive block


def another_behind(record: bytes | memoryview) -> bool:
    """Whether there is a header in what follows the last member of a tar: the next tar, joined to it by `cat`."""
    return any(bytes(record[start + 257 : start + 262]) == b"ustar" for start in range(0, len(record), _BLOCK))


def _chain(headers: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows that are headers, from row 0 on, the sizes they tell, and the row where the next one must be."""
    rows, sizes = _plain(headers)
    if not len(rows) or rows[0]:
        return rows[:0], sizes[:0], 0
    following = rows + 1 + np.where(headers[rows, 156] == ord("5"), 0, -(-sizes // _BLOCK))
    if not np.array_equal(following[:-1], rows[1:]):  # some of them lie inside a member: a tar in the tar
        where = {row: number for number, row in enumerate(rows.tolist())}
        chain = [0]
        while (row := int(following[chain[-1]])) in where:
            chain.append(where[row])
        rows, sizes, following = rows[chain], sizes[chain], following[chain]
    return rows, sizes, int(following[-1])


def _plain(headers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that hold the header of a file or a folder, with a size in octal and a right checksum; the sizes."""
    possible = np.flatnonzero(headers[:, 257] == ord("u"))
    found = headers[possible]
    kind, magic = found[:, 156], found[:, 257:263].copy().view("S6")[:, 0]
    size, stored = _octal(found[:, 124:135]), _octal(found[:, 148:154])
    plain = (magic == b"ustar") | (magic == b"ustar ")
    plain &= (kind == ord("0")) | (kind == ord("5")) | (kind == 0)
    plain &= (size >= 0) & ((found[:, 135] == 0) | (found[:, 135] == ord(" ")))
    plain &= (stored >= 0) & (stored == _sums(found) - _sums(found[:, 144:160] * _CHECKSUM) + 8 * 32)
    plain &= (kind != 0) | (found[:, 99] != ord("/"))  # the name of an old folder may end there
    return possible[plain], size[plain]


def _octal(digits: np.ndarray) -> np.ndarray:
    """[N] int64, -1 where one of the digits `[N, D]` is none."""
    values = np.ascontiguousarray(digits.T) - np.uint8(48)  # what is no digit becomes 8 or more
    result = np.zeros(len(digits), np.int64)
    for digit in values:
        result = 8 * result + digit
    result[(values > 7).any(0)] = -1
    return result


def _sums(blocks: np.ndarray) -> np.ndarray:
    """[N] int64 of the bytes of each block, eight of them in one addition: sums of 16 bits hold all of a block's."""
    words = np.ascontiguousarray(blocks).view(np.uint64)
    even = np.uint64(0x00FF00FF00FF00FF)
    quarters = ((words & even) + (words >> np.uint64(8) & even)).sum(1)
    return quarters[:, None].view(np.uint16).sum(1, dtype=np.int64)


def _joined(parts: list[Members]) -> Members:
    fields = [field.name for field in dataclasses.fields(Members)]
    return Members(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def _names(headers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """As `tarfile` reads them: up to the first zero byte, behind the prefix if there is one."""
    names = _texts(headers[rows, :100])
    if not headers[rows, 345].any():
        return names
    pairs = zip(_texts(headers[rows, 345:500]).tolist(), names.tolist(), strict=True)
    return np.array([prefix + b"/" + name if prefix else name for prefix, name in pairs])


def _texts(fields: np.ndarray) -> np.ndarray:
    width = int(np.flatnonzero(fields.any(0)).max(initial=0)) + 1
    texts = np.ascontiguousarray(fields[:, :width])
    texts[np.logical_or.accumulate(texts == 0, axis=1)] = 0
    return texts.view(f"S{width}")[:, 0]
