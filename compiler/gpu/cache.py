"""The KV cache on a device, in words of two half floats or one float, and the kernel that fills it.

Keys lie in blocks of 16 positions so that the threads of a workgroup, one a position, read side by side; a word never
holds two positions, as rows are written by workgroups that know nothing of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.rows import mean_square_factor
from forerun.compiler.gpu.words import row_field
from forerun.compiler.gpu.writer import (
    GpuKernel,
    GpuWriter,
    Grid,
    float_to_half,
    unsigned,
    writing,
)
from forerun.compiler.schedules.rope import AttentionShape
from forerun.compiler.tir import LANES, Expr
from forerun.targets.gpu import GpuTarget


@dataclass(frozen=True)
class DeviceCache:
    """Where keys and values of one layer lie. With w words in a head's row (d/2 of half floats, d of floats), the key
    of sequence s, head h, slot p is at words ((s·Kv + h)·C + p − p mod 16)·w + i·16 + p mod 16 for i = 0 … w−1, the
    value at ((s·Kv + h)·C + p)·w + i.
    """

    shape: AttentionShape
    capacity: Expr

    @property
    def words(self) -> int:
        """Words of one head's key or value."""
        return self.shape.head_dim // (2 if self.shape.kv_dtype == "float16" else 1)

    def base(self, sequence: Expr, head: Expr) -> Expr:
        """Return the first word of a sequence's keys, and values, for one head."""
        ring = self.shape.ring
        capacity = op.min(self.capacity, ring) if ring else self.capacity
        return (sequence * self.shape.kv_heads + head) * capacity * self.words

    def slot(self, slot: Expr) -> Expr:
        """Return where a slot of the session lies in this layer."""
        return tirx.floormod(slot, self.shape.ring) if self.shape.ring else slot

    def key_word(self, slot: Expr) -> Expr:
        """Return the first word of a slot's key, from `base` on; the next ones are 16 words apart."""
        within = tirx.floormod(slot, LANES)
        return (slot - within) * self.words + within

    def value_word(self, slot: Expr) -> Expr:
        """Return the first word of a slot's value, from `base` on."""
        return slot * self.words

    def load_pair(
        self, writer: GpuWriter, buffer: tirx.Buffer, first: Expr, pair: Expr, step: int
    ) -> tuple[Expr, Expr]:
        """Return dimensions 2·pair and 2·pair + 1 of a row whose words are `step` apart."""
        if self.shape.kv_dtype == "float16":
            return writer.load_halves(buffer, first + pair * step)
        low, high = (tir.bind(buffer[first + (pair * 2 + i) * step]) for i in range(2))
        return low, high

    def store_pair(
        self, buffer: tirx.Buffer, first: Expr, pair: Expr, step: int, values: tuple[Expr, Expr]
    ) -> None:
        """Write dimensions 2·pair and 2·pair + 1."""
        if self.shape.kv_dtype == "float16":
            low, high = (tir.bind(float_to_half(value)) for value in values)
            word = op.bitwise_or(low, op.shift_left(high, unsigned(16)))
            tir.store_one(buffer, word, first + pair * step)
            return
        for i, value in enumerate(values):
            tir.store_one(buffer, value, first + (pair * 2 + i) * step)


def rope_store(name: str, target: GpuTarget, shape: AttentionShape) -> GpuKernel:
    """Return the kernel that turns qkv [rows, (H + 2·Kv)·d] into scaled, rotated queries and cache entries.

    Parameters of the kernel: qkv, row_table [, cos, sin] [, norms: q's, then k's], queries, keys, values; capacity.
    A workgroup has one head of one row.
    """
    inputs = {"qkv": "float32", "row_table": "int32"}
    inputs |= {"cos": "float32", "sin": "float32"} if shape.rotates else {}
    inputs |= {} if shape.norm_epsilon is None else {"norms": "float32"}
    outputs = {"queries": "float32", "keys": shape.kv_dtype, "values": shape.kv_dtype}
    threads, grid = LANES * 4, Grid(shape.heads + 2 * shape.kv_heads, 1)
    with writing(
        name, target.computes, inputs, outputs, {"capacity": "int32"}, threads=threads, grid=grid
    ) as (writer, done):
        head = _Head(writer, shape)
        with tir.when(writer.x < shape.heads):
            head.write_query()
        with tir.when(tirx.all(writer.x >= shape.heads, writer.x < shape.heads + shape.kv_heads)):
            head.write_key()
        with tir.when(writer.x >= shape.heads + shape.kv_heads):
            head.write_value()
    return done[0]


# The numbers of a move: keys and values of `sequence` go from one slot to another in layers first … last - 1.
MOVE_FIELDS = ("sequence", "from", "to", "first", "last")


def move_rows(name: str, target: GpuTarget, shape: AttentionShape) -> GpuKernel:
    """Return the kernel that brings rows of one layer's cache to other slots, in the order of the moves.

    Parameters of the kernel: moves [move_count, 5], keys, values; capacity, move_count, layer. A workgroup has a head;
    a thread makes all moves of its words, so that what one move has read the next ones may overwrite.
    """
    outputs = dict.fromkeys(("keys", "values"), shape.kv_dtype)
    scalars = dict.fromkeys(("capacity", "move_count", "layer"), "int32")
    threads, grid = LANES * 4, Grid(shape.kv_heads, 0)
    with writing(name, target.computes, {"moves": "int32"}, outputs, scalars, threads=threads, grid=grid) as (
        writer,
        done,
    ):
        cache, layer = DeviceCache(shape, writer.scalars["capacity"]), writer.scalars["layer"]
        keys, values = writer.named["keys"], writer.named["values"]
        with writer.items(cache.words) as word, tir.loop(0, writer.scalars["move_count"]) as move:
            sequence, start, end, first, last = (
                tir.bind(writer.named["moves"][move * len(MOVE_FIELDS) + i]) for i in range(len(MOVE_FIELDS))
            )
            with tir.when(tirx.all(layer >= first, layer < last)):
                base = tir.bind(cache.base(sequence, writer.x))
                source, sink = (tir.bind(cache.slot(slot)) for slot in (start, end))
                tir.store_one(
                    keys,
                    keys[base + cache.key_word(source) + word * LANES],
                    base + cache.key_word(sink) + word * LANES,
                )
                tir.store_one(
                    values,
                    values[base + cache.value_word(source) + word],
                    base + cache.value_word(sink) + word,
                )
    return done[0]


class _Head:
    """One head of one row of qkv."""

    def __init__(self, writer: GpuWriter, shape: AttentionShape) -> None:
        self.writer, self.shape = writer, shape
        self.cache = DeviceCache(shape, writer.scalars["capacity"])
        self.row, self.head = writer.y, writer.x
        self.start = tir.bind((self.row * (shape.heads + 2 * shape.kv_heads) + self.head) * shape.head_dim)
        self.factor = None
        if shape.norm_epsilon is not None:
            qkv = writer.named["qkv"]
            self.factor = mean_square_factor(writer, qkv, self.start, shape.head_dim, shape.norm_epsilon)

    def _element(self, i: Expr, norm: int) -> Expr:
        value = self.writer.named["qkv"][self.start + i]
        if self.factor is not None:
            value = value * self.factor * self.writer.named["norms"][norm * self.shape.head_dim + i]
        return tir.bind(value)

    def _rotated(self, i: Expr, norm: int) -> Expr:
        """Return dimension `i`, normalized with norm number `norm` and rotated where asked for."""
        if not self.shape.rotates:
            return self._element(i, norm)
        half = self.shape.head_dim // 2
        low = tir.bind(i < half)
        other = tir.bind(tirx.Select(low, i + half, i - half))
        angle = tir.bind(row_field(self.writer, "positions", self.row) * half + op.min(i, other))
        cos, sin = (tir.bind(self.writer.named[name][angle]) for name in ("cos", "sin"))
        turned = tir.bind(self._element(other, norm) * sin)
        added = tir.bind(tirx.Select(low, tirx.const(0.0, "float32") - turned, turned))
        return tir.bind(self.writer.multiply_add(self._element(i, norm), cos, added))

    def write_query(self) -> None:
        """Write a rotated query head, with the softmax scale folded in."""
        shape, out = self.shape, self.writer.named["queries"]
        with self.writer.items(shape.head_dim) as i:
            value = self._rotated(i, 0) * tirx.const(shape.scale, "float32")
            tir.store_one(out, value, (self.row * shape.heads + self.head) * shape.head_dim + i)

    def _place(self, head: Expr) -> tuple[Expr, Expr]:
        """Return the first word of this row's sequence for a key/value head, and the row's slot there."""
        slot = tir.bind(self.cache.slot(row_field(self.writer, "slots", self.row)))
        return tir.bind(self.cache.base(row_field(self.writer, "sequences", self.row), head)), slot

    def write_key(self) -> None:
        """Write a rotated key."""
        base, slot = self._place(self.head - self.shape.heads)
        first = tir.bind(base + self.cache.key_word(slot))
        with self.writer.items(self.shape.head_dim // 2) as pair:
            values = tuple(self._rotated(tir.bind(pair * 2 + i), 1) for i in range(2))
            self.cache.store_pair(self.writer.named["keys"], first, pair, LANES, values)

    def write_value(self) -> None:
        """Write a value."""
        base, slot = self._place(self.head - self.shape.heads - self.shape.kv_heads)
        first = tir.bind(base + self.cache.value_word(slot))
        with self.writer.items(self.shape.head_dim // 2) as pair:
            place = tir.bind(self.start + pair * 2)
            values = tuple(tir.bind(self.writer.named["qkv"][place + i]) for i in range(2))
            self.cache.store_pair(self.writer.named["values"], first, pair, 1, values)
