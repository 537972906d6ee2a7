"""Arrays as `text.bin` holds them: numbers, texts, rows of different lengths, hash tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

NONE = 2**32 - 1


@dataclass
class Pool:
    """Texts by number."""

    numbers: dict[bytes, int] = field(default_factory=dict)

    def number(self, text: str) -> int:
        """The number of a text, a new one for a text that was not seen before."""
        return self.numbers.setdefault(text.encode(), len(self.numbers))

    def sections(self) -> tuple[bytes, bytes]:
        """Where each text begins, and all of them."""
        return strings(list(self.numbers))


def words(numbers: Iterable[int]) -> bytes:
    """Numbers of 32 bits."""
    return np.array([int(number) for number in numbers], np.uint32).tobytes()


def strings(texts: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Where each text begins, and the end of the last; all of them."""
    return words(np.cumsum([0, *map(len, texts)]).tolist()), b"".join(texts)


def ragged(rows: Sequence[Sequence[tuple[int, int]]]) -> tuple[bytes, bytes]:
    """Where each row of pairs begins, and the end of the last; all of them."""
    starts = np.cumsum([0, *map(len, rows)]).tolist()
    return words(starts), words(number for row in rows for pair in row for number in pair)


def slots(keys: np.ndarray, values: np.ndarray) -> bytes:
    """An open hash table of values with linear probing, half full at most; later ones of a key replace earlier."""
    count = 1 << max(int(2 * len(keys)).bit_length(), 1)
    table = np.full(count, NONE, np.uint32)
    places = (mix(keys.astype(np.uint64)) & np.uint64(count - 1)).astype(np.int64)
    held: dict[int, int] = {}
    for key, first, value in zip(keys.tolist(), places.tolist(), values.tolist(), strict=True):
        place = first
        while place in held and held[place] != key:
            place = (place + 1) % count
        held[place] = key
        table[place] = value
    return table.tobytes()


def mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


def hash_of(text: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001B3 & (2**64 - 1)
    return value
