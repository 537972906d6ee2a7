"""Weights as the kernels read them, and the one file that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forerun.compiler.schedules.layouts import LAYOUTS, block_bytes, pack_blocks
from forerun.compiler.schemes import Scheme
from forerun.compiler.tir import LANES
from forerun.compiler.vector_math import GROUP

ALIGNMENT = 64  # a cache line, and one AVX-512 register

Load = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Packing:
    """One packed array: which function inputs it is made of, stacked, and in what layout.

    Layouts: `blocks` quantized weights in a `block_layout`; `halves` their float16 scales or minimums
    [N/16, K/group, 16], the scheme's group; `float_blocks` float32 weights [N/16, K, 16]; `vector` float32 as it is
    (None among the parts: zeros).
    `interleave` alternates 32 rows of the first part with 32 of the second. `row_bytes` is what one row of a call
    reads of a table that is looked up by row; 0 where a call reads all of the array, however many rows it has.
    """

    layout: str
    parts: tuple[str | None, ...]
    columns: tuple[int, ...]
    block_layout: str | None = None
    scheme: Scheme | None = None
    interleave: bool = False
    row_bytes: int = 0

    @property
    def ctype(self) -> str:
        """The C element type that kernels see."""
        return {"blocks": "uint8_t", "halves": "uint16_t"}.get(self.layout, "float")

    def bytes(self, inputs: int) -> int:
        """Return the size of the packed array of a matrix with that many inputs."""
        if self.layout == "vector":
            return sum(self.columns) * 4
        rows = -(-sum(self.columns) // LANES) * LANES
        if self.layout == "float_blocks":
            return rows * inputs * 4
        assert self.scheme is not None
        if self.layout == "halves":
            return rows * (inputs // self.scheme.group) * 2
        return rows // LANES * (inputs // GROUP) * block_bytes(self.scheme.bits)

    def pack(self, load: Load) -> np.ndarray:
        """Return the packed array; `load` gives a function input's data by name."""
        arrays = [
            np.zeros(size, np.float32) if part is None else load(part)
            for part, size in zip(self.parts, self.columns, strict=True)
        ]
        if self.layout == "vector":
            return np.ascontiguousarray(np.concatenate([a.astype(np.float32).reshape(-1) for a in arrays]))
        if self.layout == "blocks":
            arrays = [unsigned(array, self.scheme) for array in arrays]
        rows = self._stack(arrays)
        rows = np.concatenate([rows, np.zeros((-len(rows) % LANES, *rows.shape[1:]), rows.dtype)])
        if self.layout == "blocks":
            assert self.scheme is not None and self.block_layout is not None
            return pack_blocks(LAYOUTS[self.block_layout], rows, self.scheme.bits)
        dtype = np.float16 if self.layout == "halves" else np.float32
        lanes = rows.reshape(len(rows) // LANES, LANES, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(lanes.astype(dtype))

    def _stack(self, arrays: list[np.ndarray]) -> np.ndarray:
        if not self.interleave:
            return np.concatenate(arrays)
        chunks = [array.reshape(-1, GROUP, array.shape[1]) for array in arrays]
        return np.concatenate(chunks, axis=1).reshape(-1, arrays[0].shape[1])


def unsigned(values: np.ndarray, scheme: Scheme | None) -> np.ndarray:
    """Return quantized weights [N, K] as uint8 with the scheme's offset added."""
    assert scheme is not None
    return (values.astype(np.int16) + scheme.offset).astype(np.uint8)


class WeightsFile:
    """Writes packed arrays one after the other and remembers where each lies; equal requests share one place."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._places: dict[object, int] = {}
        self.sizes: dict[int, int] = {}  # offset → bytes of the array there
        self.bytes = 0

    def place(self, key: object, make: Callable[[], np.ndarray]) -> int:
        """Return the offset of the array for `key`, writing `make()` the first time."""
        if key not in self._places:
            self._append(b"\0" * (-self.bytes % ALIGNMENT))
            self._places[key] = self.bytes
            self._append(np.ascontiguousarray(make()).reshape(-1).view(np.uint8).data)
            self.sizes[self._places[key]] = self.bytes - self._places[key]
        return self._places[key]

    def _append(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.bytes += len(data)

    def close(self) -> None:
        """Finish the file, padded to a whole line."""
        self._append(b"\0" * (-self.bytes % ALIGNMENT))
        self._file.close()
