"""What an ELF shared library asks of the system that loads it, read from its headers.

Sources: Tool Interface Standard, ELF specification 1.2; ELF-64 object file format, version 1.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forerun.errors import CompileError

_LOAD, _DYNAMIC = 1, 2  # kinds of segments
_DYNSYM = 11  # kind of the section of dynamic symbols
_NEEDED = 1  # dynamic tag
_WEAK = 2  # binding of a symbol


@dataclass(frozen=True)
class Demands:
    """Libraries that are loaded with it, symbols that it takes from them, and the smallest alignment of what is mapped.

    Weak symbols, which may stay undefined, are not among `symbols`.
    """

    libraries: tuple[str, ...]
    symbols: tuple[str, ...]
    page_bytes: int


def read_demands(path: Path) -> Demands:
    """Read a 64-bit little-endian shared library; CompileError if it is none."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise CompileError(f"{path.name} is no 64-bit little-endian ELF file")
    try:
        sections = list(_sections(data))
        symbols = next(section for section in sections if section[0] == _DYNSYM)
        names = sections[symbols[3]]
        return Demands(
            tuple(_text(data, names, offset) for offset in _needed(data)),
            tuple(sorted(_text(data, names, offset) for offset in _undefined(data, symbols))),
            min(segment[7] for segment in _segments(data) if segment[0] == _LOAD),
        )
    except (struct.error, StopIteration, IndexError, ValueError) as error:
        raise CompileError(f"{path.name} is a damaged shared library: {error}") from error


def _segments(data: bytes) -> Iterator[tuple[int, ...]]:
    """Yield type, flags, offset, address, physical address, file size, memory size, alignment."""
    (start,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<2H", data, 54)
    for place in range(count):
        yield struct.unpack_from("<2I6Q", data, start + place * size)


def _sections(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield type, offset, size, number of the section that it is linked to."""
    (start,), (size, count) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<2H", data, 58)
    for place in range(count):
        header = struct.unpack_from("<2I4Q2I2Q", data, start + place * size)
        yield header[1], header[4], header[5], header[6]


def _needed(data: bytes) -> Iterator[int]:
    """Yield where the names of libraries lie in the table of names."""
    segment = next(segment for segment in _segments(data) if segment[0] == _DYNAMIC)
    for place in range(segment[2], segment[2] + segment[5], 16):
        tag, value = struct.unpack_from("<2Q", data, place)
        if tag == _NEEDED:
            yield value


def _undefined(data: bytes, symbols: tuple[int, int, int, int]) -> Iterator[int]:
    """Yield where the names of undefined symbols lie in the table of names."""
    _, start, size, _ = symbols
    for place in range(start, start + size, 24):
        name, info, _, section, _, _ = struct.unpack_from("<I2BH2Q", data, place)
        if name and section == 0 and info >> 4 != _WEAK:
            yield name


def _text(data: bytes, names: tuple[int, int, int, int], offset: int) -> str:
    start = names[1] + offset
    return data[start : data.index(b"\0", start)].decode("ascii", "replace")
