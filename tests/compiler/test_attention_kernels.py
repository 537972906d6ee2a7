"""Attention kernels: against float64 numpy, and the same bits however rows, threads and the cache are arranged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from emulated_kernels import EMULATED
from exact_attention import exact_attention
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cache import Cache
from kernel_runner import RUNNABLE, aligned, build_kernels, placed

from forerun.compiler.schedules.attention import (
    attention_merge,
    attention_parts,
    attention_rows,
    attention_space,
)
from forerun.compiler.schedules.plan import ALONE_ROWS
from forerun.compiler.schedules.rope import BLOCK, AttentionShape, ring_positions
from forerun.targets import Target

CAPACITY, MAX_GATHER, MOST_ROWS = 3072, 272, 256
LENGTHS = (1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 513, 2900)


@dataclass(frozen=True)
class Row:
    """A row that sees positions 0 … position of a sequence, those from `start` on at `slots`."""

    sequence: int
    position: int
    start: int
    slots: tuple[int, ...] = ()


def in_place(sequence: int, position: int) -> Row:
    return Row(sequence, position, position + 1)


class Attention:
    """The three kernels of one shape over one cache of random keys and values; queries depend on the position."""

    def __init__(self, target: Target, shape: AttentionShape, folder: Path, rng: np.random.Generator) -> None:
        self.shape, self.cache = shape, Cache(shape, 3, min(CAPACITY, shape.ring or CAPACITY))
        self.kernels = build_kernels(
            [
                attention_parts("parts", target, shape),
                attention_merge("merge", target, shape, False),
                attention_rows("rows", target, shape, False),
            ],
            target,
            folder,
        )
        size = (CAPACITY, shape.kv_heads, shape.head_dim)
        kind = self.cache.kind
        self.key, self.value = (rng.standard_normal(size).astype(kind) for _ in range(2))
        self.queries = rng.standard_normal((CAPACITY, shape.heads, shape.head_dim)).astype(np.float32)
        space = attention_space(shape, kind.itemsize, CAPACITY)
        self.tail, self.scores = aligned(space.tail_bytes, np.uint8), aligned(space.scores_bytes, np.uint8)
        self.own = aligned(space.parts_bytes + space.parts_bytes_per_position * CAPACITY, np.uint8)
        self.shared = aligned(space.shared_bytes, np.uint8)

    def fill(self, sequence: int, slots: np.ndarray) -> None:
        """Write position p at slots[p]; what is not written is NaN and must not be read. Nor must what a ring has
        lost: the oldest slot that it still has is written last.
        """
        self.cache.keys[sequence], self.cache.values[sequence] = np.nan, np.nan
        ring = self.shape.ring or CAPACITY
        for position, slot in sorted(enumerate(slots), key=lambda each: each[1]):
            self.cache.write(sequence, int(slot) % ring, self.key[position], self.value[position])

    def __call__(self, rows: Sequence[Row], kernel: str, threads: int = 1) -> np.ndarray:
        """Return [rows, H, d] as `threads` threads compute it, by the kernels for few rows or for many."""
        count, shape = len(rows), self.shape
        positions = placed(np.array([row.position for row in rows], np.int32))
        sequences = placed(np.array([row.sequence for row in rows], np.int32))
        starts, gather = (
            placed(np.array([row.start for row in rows], np.int32)),
            aligned((count, MAX_GATHER), np.int32),
        )
        for i, row in enumerate(rows):
            gather[i, : len(row.slots)] = row.slots
        out = placed(np.full((count, shape.heads, shape.head_dim), np.nan, np.float32))
        read = (placed(self.queries[positions]), positions, sequences, starts, gather)
        read = (*read, self.cache.keys, self.cache.values, self.tail, self.scores)
        if kernel == "rows":
            self.kernels.call("rows", *read, self.own, out, CAPACITY, MAX_GATHER, rows=count, threads=threads)
        else:
            self.kernels.call("parts", *read, self.shared, CAPACITY, MAX_GATHER, rows=count, threads=threads)
            self.kernels.call("merge", self.shared, positions, out, rows=count)
        return out

    def exact(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the result [H, d] in float64, and a bound on the kernels' rounding errors."""
        length = position + 1
        terms = min(BLOCK, length) + length // BLOCK + 16
        return exact_attention(self.shape, self.queries[position], self.key, self.value, length, terms)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


@pytest.mark.parametrize("kv_dtype", ("float16", "float32"))
@pytest.mark.parametrize(
    "shape",
    (
        *((4, 2, 32, 0), (9, 3, 64, 0), (8, 1, 64, 0), (3, 3, 32, 0), (8, 2, 128, 0)),
        *((4, 2, 32, 1), (9, 3, 64, 130), (4, 1, 256, 512)),
    ),
    ids=str,
)
@pytest.mark.parametrize("target", (*RUNNABLE[:2], *EMULATED[:1]), ids=lambda target: target.name)
def test_against_numpy(
    target: Target, shape: tuple[int, int, int, int], kv_dtype: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    *sizes, window = shape
    described = AttentionShape(*sizes, 1.0, kv_dtype, None, window, ring_positions(window, MOST_ROWS))
    attention = Attention(target, described, tmp_path, rng)
    for length in LENGTHS:
        # Rows after it may have been written, as many as a call has.
        attention.fill(1, np.arange(min(length + MOST_ROWS, CAPACITY)))
        row = in_place(1, length - 1)
        result = attention([row], "parts", 2)
        expected, bound = attention.exact(row.position)
        assert (abs(result[0] - expected) <= bound).all(), f"length {length}"
        assert same_bits(result, attention([row], "rows", 3)), f"length {length}"


@pytest.fixture(scope="module", params=(0, 150), ids=("all", "window"))
def attention(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Attention:
    """Kernels of a small shape for this machine's best target."""
    seed = int(np.random.SeedSequence().entropy) % 2**32  # type: ignore[arg-type]
    print(f"seed {seed}")
    window = request.param
    shape = AttentionShape(6, 2, 32, 1.0, "float16", None, window, ring_positions(window, MAX_GATHER + 30))
    return Attention(RUNNABLE[0], shape, tmp_path_factory.mktemp("attention"), np.random.default_rng(seed))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_trees_and_threads_do_not_change_a_bit(attention: Attention, data: st.DataObject) -> None:
    """A chain in place, the same positions scattered behind a branch, any rows beside them, any threads."""
    near = st.integers(0, 24).flatmap(lambda blocks: st.integers(-20, 20).map(lambda d: blocks * BLOCK + d))
    length = data.draw(st.one_of(near, st.integers(1, 2900), st.sampled_from(LENGTHS)), "length")
    length = min(max(length, 1), 2900)
    start = data.draw(st.integers(max(0, length - MAX_GATHER + 1), length), "first gathered position")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    slots = start + rng.permutation(min(CAPACITY - start, length - start + 20))[: length - start]
    attention.fill(1, np.arange(length))
    attention.fill(2, np.concatenate([np.arange(start), slots]))
    chosen = data.draw(st.lists(st.integers(max(0, start - 3), length - 1), min_size=1, max_size=9), "rows")
    straight = [in_place(1, position) for position in chosen]
    branch = [
        Row(2, p, start, tuple(map(int, slots[: p + 1 - start]))) if p >= start else in_place(2, p)
        for p in chosen
    ]
    alone = np.concatenate([attention([row], "parts") for row in straight])
    threads = data.draw(st.sampled_from((1, 2, 3, 5, 64)), "threads")
    for kernel, most in (("parts", ALONE_ROWS), ("rows", 2 * len(chosen))):
        mixed = [rows[i] for i in range(len(chosen)) for rows in (straight, branch)][:most]
        result = attention(mixed, kernel, threads)
        for i, row in enumerate(mixed):
            assert same_bits(result[i], alone[i // 2]), (kernel, row)
