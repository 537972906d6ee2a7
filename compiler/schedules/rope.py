"""Rotary embedding of queries and keys, and the write of keys and values into the cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.norm import reciprocal_rms, sum_of_squares
from forerun.targets.target import Arithmetic

# Positions of a block. Of 64, 128 and 256: smaller ones share a short context out more evenly, larger ones leave
# fewer parts to merge in a long one.
BLOCK = 128


@dataclass(frozen=True)
class AttentionShape:
    """Heads and sizes of one attention module. `kv_dtype` is the cache's element: float16 or float32.

    A row sees the last `window` positions; 0: all. With a window the cache is a ring of at most `ring` slots, a
    multiple of a block: slot s of the session lies at s mod ring. `rotates`: queries and keys are rotated.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    kv_dtype: str
    norm_epsilon: float | None = None
    window: int = 0
    ring: int = 0
    rotates: bool = True

    @property
    def group(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads


def ring_positions(window: int, rows: int) -> int:
    """Return the slots of a layer with a window for calls and trees of at most `rows` rows; 0 without a window.

    The oldest row of a call, up to `rows` before the first staged one, still sees its window after the newest staged
    row has been written, up to `rows` after that one.
    """
    return -(-(window + 2 * rows) // BLOCK) * BLOCK if window else 0


def key_block_start(
    shape: AttentionShape, capacity: tir.Expr, sequence: tir.Expr, head: tir.Expr
) -> tir.Expr:
    """Return the index of a sequence's first key element for one head: keys are [S, Kv, C/16, d, 16]."""
    if shape.ring:
        capacity = op.min(capacity, tirx.const(shape.ring, "int64"))
    return (
        (tir.cast(sequence, "int64") * shape.kv_heads + tir.cast(head, "int64")) * capacity * shape.head_dim
    )


def ring_slot(shape: AttentionShape, slot: tir.Expr) -> tir.Expr:
    """Return where a slot of the session lies in this layer's cache."""
    return tirx.floormod(slot, shape.ring) if shape.ring else slot


def rope_store(name: str, arithmetic: Arithmetic, shape: AttentionShape) -> tir.Kernel:
    """Return the kernel that turns qkv [rows, (H + 2·Kv)·d] into scaled, rotated queries and cache entries.

    Parameters of the kernel: qkv, [positions,] sequences, slots [, cos, sin] [, q_norm, k_norm], queries
    [rows, H·d] (scaled by the softmax scale), keys, values; capacity. Positions and tables are there where the layer
    rotates. Work is shared by (row, head).
    Source: Su et al. 2021, "RoFormer" (halves rotated against each other, as in Llama).
    """
    norms = {} if shape.norm_epsilon is None else {"q_norm": "float32", "k_norm": "float32"}
    inputs = {"qkv": "float32"} | ({"positions": "int32"} if shape.rotates else {})
    inputs |= {"sequences": "int32", "slots": "int32"}
    inputs |= ({"cos": "float32", "sin": "float32"} if shape.rotates else {}) | norms
    outputs = {"queries": "float32", "keys": shape.kv_dtype, "values": shape.kv_dtype}
    with tir.writing(name, arithmetic, inputs, outputs, {"capacity": "int64"}) as writer:
        buffers = writer.named
        all_heads = shape.heads + 2 * shape.kv_heads
        begin, end = writer.share(writer.rows * all_heads)
        with tir.loop(begin, end) as item:
            row, head = tir.bind(tirx.floordiv(item, all_heads)), tir.bind(tirx.floormod(item, all_heads))
            one = _Head(writer, shape, buffers, row, head)
            with tir.when(head < shape.heads):
                one.write_query()
            with tir.when(tirx.all(head >= shape.heads, head < shape.heads + shape.kv_heads)):
                one.write_key()
            with tir.when(head >= shape.heads + shape.kv_heads):
                one.write_value()
    return writer.kernel()


@dataclass(frozen=True)
class _Head:
    """One head of one row of qkv."""

    writer: tir.KernelWriter
    shape: AttentionShape
    buffers: dict[str, tirx.Buffer]
    row: tir.Expr
    head: tir.Expr

    @property
    def _start(self) -> tir.Expr:
        return (self.row * (self.shape.heads + 2 * self.shape.kv_heads) + self.head) * self.shape.head_dim

    @property
    def _width(self) -> int:
        """Lanes that divide half a head."""
        return math.gcd(self.shape.head_dim // 2, tir.LANES)

    def _rotated(self, norm: str) -> list[tuple[tir.Expr, int]]:
        """Return (vector, first dimension) pairs of the head, normalized and rotated where asked for."""
        half, width = self.shape.head_dim // 2, self._width
        qkv, start = self.buffers["qkv"], tir.bind(self._start)
        factor = None
        if self.shape.norm_epsilon is not None:
            total = sum_of_squares(self.writer, qkv, start, self.shape.head_dim)
            factor = tir.splat(
                reciprocal_rms(self.writer, total, self.shape.head_dim, self.shape.norm_epsilon), width
            )
        if not self.shape.rotates:
            return [(self._element(start, i, width, norm, factor), i) for i in range(0, 2 * half, width)]
        angle = tir.bind(self.buffers["positions"][self.row] * half)
        pieces = []
        for i in range(0, half, width):
            low, high = (self._element(start, i + offset, width, norm, factor) for offset in (0, half))
            cos = tir.bind(tir.load(self.buffers["cos"], angle + i, width))
            sin = tir.bind(tir.load(self.buffers["sin"], angle + i, width))
            zero = tir.floats(0.0, width)
            pieces.append((tir.bind(self.writer.multiply_add(low, cos, zero - high * sin)), i))
            pieces.append((tir.bind(self.writer.multiply_add(high, cos, low * sin)), half + i))
        return pieces

    def _element(self, start: tir.Expr, i: int, width: int, norm: str, factor: tir.Expr | None) -> tir.Expr:
        value = tir.load(self.buffers["qkv"], start + i, width)
        if factor is not None:
            value = value * factor * tir.load(self.buffers[norm], i, width)
        return tir.bind(value)

    def write_query(self) -> None:
        """Write a rotated query head, with the softmax scale folded in."""
        start = tir.bind((self.row * self.shape.heads + self.head) * self.shape.head_dim)
        scale = tir.floats(self.shape.scale, self._width)
        for vector, i in self._rotated("q_norm"):
            tir.store(self.buffers["queries"], vector * scale, start + i, self._width)

    def write_key(self) -> None:
        """Write a rotated key: one column of a block of 16 positions."""
        (capacity,) = self.writer.scalars
        shape, kv_head = self.shape, self.head - self.shape.heads
        slot = tir.bind(ring_slot(shape, self.buffers["slots"][self.row]))
        base = key_block_start(shape, capacity, self.buffers["sequences"][self.row], kv_head)
        within = tirx.floordiv(slot, tir.LANES) * (shape.head_dim * tir.LANES) + tirx.floormod(
            slot, tir.LANES
        )
        column = tir.bind(base + tir.cast(within, "int64"))
        staged = tir.registers(self._width)
        for vector, i in self._rotated("k_norm"):
            tir.store(staged, vector, 0, self._width)
            for lane in range(self._width):
                element = tir.cast(staged[lane], shape.kv_dtype)
                tir.store_one(self.buffers["keys"], element, column + (i + lane) * tir.LANES)

    def write_value(self) -> None:
        """Write a value row."""
        (capacity,) = self.writer.scalars
        shape, width = self.shape, self._width
        kv_head = self.head - shape.heads - shape.kv_heads
        base = key_block_start(shape, capacity, self.buffers["sequences"][self.row], kv_head)
        slot = ring_slot(shape, self.buffers["slots"][self.row])
        start = tir.bind(base + tir.cast(slot, "int64") * shape.head_dim)
        for i in range(0, shape.head_dim, width):
            vector = tir.load(self.buffers["qkv"], self._start + i, width)
            tir.store(self.buffers["values"], tir.cast(vector, f"{shape.kv_dtype}x{width}"), start + i, width)
