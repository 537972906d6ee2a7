"""Where activations live: one arena for every function of a component, all offsets fixed when compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forerun.compiler.graph import Graph, Value
from forerun.compiler.schedules.plan import QUANTIZED_PARTS
from forerun.compiler.vector_math import GROUP, HALF

ALIGNMENT = 64


@dataclass(frozen=True)
class Buffer:
    """One array in the arena: byte offset, C element type."""

    offset: int
    ctype: str


@dataclass(frozen=True)
class Arena:
    """Buffers by value, and part for quantized values; `bytes` in all."""

    buffers: Mapping[Value, Mapping[str, Buffer]]
    bytes: int


def aligned(size: int) -> int:
    """Round up to a whole cache line."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def parts_of(value: Value, quantized: bool, max_rows: int) -> dict[str, tuple[str, int]]:
    """Return the arrays of a value [M, columns]: name → (C type, bytes for max_rows)."""
    columns = int(value.shape[-1])
    if not quantized:
        return {"values": ("float", max_rows * columns * 4)}
    halves, groups = max_rows * (columns // HALF) * 4, max_rows * (columns // GROUP) * 4
    types = ("int8_t", "int8_t", "float", "int32_t", "int32_t", "float")
    sizes = (max_rows * columns, max_rows * columns, halves, halves, halves, groups)
    return dict(zip(QUANTIZED_PARTS, zip(types, sizes, strict=True), strict=True))


def plan_arena(graph: Graph, quantized: Mapping[Value, bool], max_rows: int) -> Arena:
    """Give each value in `quantized` (those that live in the arena) a place, reusing the places of dead ones.

    First fit by order of definition; a value's place is free again after its last reader has run, and the barrier
    after that reader keeps threads from overtaking each other.
    """
    last_use = {
        value: max(i for i, node in enumerate(graph.nodes) if value in node.inputs or value in node.outputs)
        for value in quantized
    }
    buffers: dict[Value, dict[str, Buffer]] = {}
    live: list[tuple[int, int, Value]] = []
    total = 0
    for i, node in enumerate(graph.nodes):
        live = [entry for entry in live if last_use[entry[2]] >= i]
        for value in node.outputs:
            if value not in quantized or value in buffers:
                continue
            parts = parts_of(value, quantized[value], max_rows)
            size = sum(aligned(size) for _, size in parts.values())
            start = _first_gap(live, size)
            live.append((start, start + size, value))
            buffers[value] = _lay_out(parts, start)
            total = max(total, start + size)
    return Arena(buffers, total)


def _first_gap(live: list[tuple[int, int, Value]], size: int) -> int:
    start = 0
    for begin, end, _ in sorted(live, key=lambda entry: entry[0]):
        if begin - start >= size:
            break
        start = max(start, end)
    return start


def _lay_out(parts: dict[str, tuple[str, int]], start: int) -> dict[str, Buffer]:
    laid: dict[str, Buffer] = {}
    for name, (ctype, size) in parts.items():
        laid[name] = Buffer(start, ctype)
        start += aligned(size)
    return laid
