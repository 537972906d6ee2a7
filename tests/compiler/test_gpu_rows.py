"""Kernels for devices between the matmuls, run by PoCL: against numpy, and attention against itself in other rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from device_runner import DEVICES, LAYOUTS, DeviceKernels
from exact_attention import exact_attention
from test_attention_kernels import MAX_GATHER, Row, in_place, same_bits
from test_matmul import dense, stored
from test_row_kernels import rotated_heads

from forerun.compiler.gpu.attention import attention_merge, attention_parts, part_floats, shared_bytes
from forerun.compiler.gpu.cache import rope_store
from forerun.compiler.gpu.rows import embed_float, embed_quantized, gated_rows, quantize_rows, rms_norm
from forerun.compiler.gpu.words import ROW_FIELDS, QuantizedWords
from forerun.compiler.operations import CachedAttention
from forerun.compiler.pack import Packing
from forerun.compiler.schedules import RULES
from forerun.compiler.schedules.plan import Decline, Settings
from forerun.compiler.schedules.rope import BLOCK, AttentionShape, ring_positions
from forerun.compiler.schemes import FLOAT32, SCHEMES, Scheme
from forerun.targets.gpu import GpuTarget


def quantized_words(rows: int, columns: int) -> np.ndarray:
    """Return room for quantized rows."""
    return np.zeros((rows, QuantizedWords(columns).row_words), np.uint32)


def parts_of(words: np.ndarray, columns: int) -> dict[str, np.ndarray]:
    """Return the parts of quantized rows, each [rows, …] in its own type."""
    kinds = {"values": (1, np.int8), "low": (1, np.int8), "scale": (16, np.float32)}
    kinds |= {"sum": (16, np.int32), "wide_sum": (16, np.int32), "scaled_sum": (32, np.float32)}
    parts, start = {}, 0
    for name, (size, dtype) in kinds.items():
        count = columns // size * np.dtype(dtype).itemsize // 4
        parts[name] = np.ascontiguousarray(words[:, start : start + count]).view(dtype)
        start += count
    assert start == words.shape[1]
    return parts


def check_quantized(words: np.ndarray, exact: np.ndarray) -> None:
    """The 16-bit numbers are the nearest ones, and the sums are theirs."""
    rows, parts = len(words), parts_of(words, exact.shape[1])
    both = parts["values"].astype(np.int32) * 256 + parts["low"]
    scale, total = parts["scale"], parts["sum"]
    largest = np.abs(exact).reshape(rows, -1, 16).max(axis=2)
    np.testing.assert_allclose(scale, largest / 127, rtol=1e-5)
    step = np.repeat(largest, 16, axis=1) / (127 * 256)
    assert (
        np.abs(both / 256 * np.repeat(scale, 16, axis=1) - exact) <= 0.51 * step + 1e-4 * abs(exact)
    ).all()
    assert np.array_equal(total, parts["values"].reshape(rows, -1, 16).sum(axis=2, dtype=np.int32))
    assert np.array_equal(parts["wide_sum"], both.reshape(rows, -1, 16).sum(axis=2, dtype=np.int32))
    expected = (scale * total).reshape(rows, -1, 2).sum(axis=2)
    np.testing.assert_allclose(parts["scaled_sum"], expected, rtol=1e-5, atol=1e-6)


def row_table(rows: int, **fields: np.ndarray) -> np.ndarray:
    """Return the table of the rows' numbers; those not given are out of any range."""
    table = np.full((rows, len(ROW_FIELDS)), -(10**6), np.int32)
    for name, values in fields.items():
        table[:, ROW_FIELDS.index(name)] = values
    return table


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("columns", (96, 576, 1056))
def test_norm(target: GpuTarget, columns: int, rng: np.random.Generator) -> None:
    rows, epsilon = 5, 1e-5
    kernels = DeviceKernels(
        target,
        [
            rms_norm("plain", target, columns, epsilon, False, False),
            rms_norm("added", target, columns, epsilon, False, True),
            rms_norm("quantized", target, columns, epsilon, True, False),
        ],
    )
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    x[2] = 0  # a row of zeros must not divide by zero
    weight = rng.standard_normal(columns).astype(np.float32)
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + epsilon) * weight
    out = np.zeros((rows, columns), np.float32)
    kernels.call("plain", x, weight, out, rows=rows)
    np.testing.assert_allclose(out, exact, rtol=3e-6, atol=1e-7)
    start = rng.standard_normal((rows, columns)).astype(np.float32)
    added = start.copy()
    kernels.call("added", x, weight, added, rows=rows)
    assert np.array_equal(added, start + out)
    words = quantized_words(rows, columns)
    kernels.call("quantized", x, weight, words, rows=rows)
    check_quantized(words, exact)
    assert not words[2].any()


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("columns", (64, 1504))
def test_quantized_and_gated_rows(target: GpuTarget, columns: int, rng: np.random.Generator) -> None:
    rows = int(rng.integers(1, 5))
    x = rng.standard_normal((rows, 2 * columns)).astype(np.float32)
    gate, up = np.split(x.astype(np.float64), 2, axis=1)
    exact = gate / (1 + np.exp(-gate)) * up
    kernels = DeviceKernels(
        target,
        [
            quantize_rows("quantize", target, columns),
            gated_rows("gated", target, columns, True, "silu"),
            gated_rows("float", target, columns, False, "silu"),
        ],
    )
    words = quantized_words(rows, columns)
    kernels.call("quantize", np.ascontiguousarray(x[:, :columns]), words, rows=rows)
    check_quantized(words, gate)
    words = quantized_words(rows, columns)
    kernels.call("gated", x, words, rows=rows)
    check_quantized(words, exact)
    out = np.zeros((rows, columns), np.float32)
    kernels.call("float", x, out, rows=rows)
    np.testing.assert_allclose(out, exact, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("target", LAYOUTS, ids=lambda target: target.name)
@pytest.mark.parametrize("factor", (1.0, 12.0))
@pytest.mark.parametrize("scheme", (*SCHEMES.values(), FLOAT32), ids=lambda scheme: scheme.name)
def test_embedding_reads_the_matmul_layout(
    target: GpuTarget, scheme: Scheme, factor: float, rng: np.random.Generator
) -> None:
    vocabulary, columns = 48, 32 * int(rng.integers(1, 6))
    parts = stored(scheme, vocabulary, columns, rng)
    if scheme.quantized:
        kernel = embed_quantized("embed", target, scheme, (vocabulary, columns), factor)
        layouts = ["blocks", *["halves"] * (len(parts) - 1)]
    else:
        kernel, layouts = embed_float("embed", target, (vocabulary, columns), factor), ["float_blocks"]
    packed = [
        Packing(layout, (name,), (vocabulary,), block_layout=target.weight_layout, scheme=scheme).pack(
            parts.__getitem__
        )
        for layout, name in zip(layouts, parts, strict=True)
    ]
    ids = rng.integers(0, vocabulary, 9).astype(np.int32)
    out = np.zeros((9, columns), np.float32)
    DeviceKernels(target, [kernel]).call(
        "embed", row_table(9, token_ids=ids), *map(np.ascontiguousarray, packed), out, rows=9
    )
    np.testing.assert_allclose(out, factor * dense(parts)[ids], rtol=1e-6, atol=1e-6)


class WordCache:
    """A layer's cache in the device's layout: words of keys [S, Kv, C/16, w, 16] and values [S, Kv, C, w]."""

    def __init__(self, shape: AttentionShape, sequences: int, capacity: int) -> None:
        self.shape, self.kind = shape, np.dtype(shape.kv_dtype)
        words = shape.head_dim * self.kind.itemsize // 4
        self.keys = np.full((sequences, shape.kv_heads, capacity // 16, words, 16), 0xFFFFFFFF, np.uint32)
        self.values = np.full((sequences, shape.kv_heads, capacity, words), 0xFFFFFFFF, np.uint32)

    def write(self, sequence: int, slot: int, key: np.ndarray, value: np.ndarray) -> None:
        """Write rows [Kv, d]."""
        self.keys[sequence, :, slot // 16, :, slot % 16] = key.astype(self.kind).view(np.uint32)
        self.values[sequence, :, slot] = value.astype(self.kind).view(np.uint32)

    def read(self, sequence: int, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Return key and value [Kv, d] of a slot."""
        key = np.ascontiguousarray(self.keys[sequence, :, slot // 16, :, slot % 16])
        return key.view(self.kind), self.values[sequence, :, slot].view(self.kind)


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("kv_dtype", ("float16", "float32"))
@pytest.mark.parametrize("norm", (None, 1e-6), ids=("plain", "qk_norm"))
@pytest.mark.parametrize("rotates", (True, False), ids=("rotated", "unrotated"))
def test_rope_store(
    target: GpuTarget, kv_dtype: str, norm: float | None, rotates: bool, rng: np.random.Generator
) -> None:
    shape = AttentionShape(4, 2, 48, 0.25, kv_dtype, norm, rotates=rotates)
    cache, rows, half = WordCache(shape, 2, 48), 5, 24
    qkv = rng.standard_normal((rows, 8 * 48)).astype(np.float32)
    positions, sequences = (rng.integers(0, most, rows).astype(np.int32) for most in (40, 2))
    slots = rng.permutation(40)[:rows].astype(np.int32)
    angles = np.arange(40)[:, None] / 100.0 ** (np.arange(half) / half)
    tables = [f(angles).astype(np.float32) for f in (np.cos, np.sin)]
    norms = [rng.standard_normal(48).astype(np.float32) for _ in range(2)] if norm else []
    queries = np.zeros((rows, 4, 48), np.float32)
    table = row_table(rows, positions=positions, sequences=sequences, slots=slots)
    where = (table, *tables) if rotates else (table,)
    joined_norms = [np.concatenate(norms)] if norm else []
    DeviceKernels(target, [rope_store("rope", target, shape)]).call(
        "rope", qkv, *where, *joined_norms, queries, cache.keys, cache.values, 48, rows=rows
    )
    q, k, v = rotated_heads(qkv, shape, norms, angles[positions])
    np.testing.assert_allclose(queries, q, rtol=1e-4, atol=1e-5)
    tolerance = 1e-3 if kv_dtype == "float16" else 1e-5
    for row in range(rows):
        key, value = cache.read(sequences[row], slots[row])
        np.testing.assert_allclose(key, k[row], rtol=tolerance, atol=tolerance)
        assert np.array_equal(value, v[row].astype(kv_dtype))


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
def test_half_floats_are_rounded_as_ieee_says(target: GpuTarget, rng: np.random.Generator) -> None:
    """Values pass through the cache as numpy rounds them: any bits, subnormal results and overflow included."""
    shape = AttentionShape(1, 1, 256, 1.0, "float16", rotates=False)
    cache, rows = WordCache(shape, 1, 16), 16
    bits = rng.integers(0, 2**32, (rows, 3 * 256), dtype=np.uint32)
    bits[:8] = bits[:8] & 0x8FFFFFFF | rng.integers(0x30, 0x48, (8, 3 * 256), dtype=np.uint32) << 24
    qkv = bits.view(np.float32)
    numbers = np.arange(rows, dtype=np.int32)
    DeviceKernels(target, [rope_store("rope", target, shape)]).call(
        "rope",
        qkv,
        row_table(rows, sequences=0 * numbers, slots=numbers),
        np.zeros((rows, 256), np.float32),
        cache.keys,
        cache.values,
        16,
        rows=rows,
    )
    found = cache.values.reshape(rows, 128).view(np.float16)
    with np.errstate(over="ignore"):
        expected = qkv[:, 512:].astype(np.float16)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    there = ~np.isnan(expected)
    assert np.array_equal(found.view(np.uint16)[there], expected.view(np.uint16)[there])


CHUNK_ROWS = 5  # whose parts are in memory at a time


class Attention:
    """Both kernels of one shape over one cache of random keys and values; queries depend on the position."""

    def __init__(self, target: GpuTarget, shape: AttentionShape, rng: np.random.Generator) -> None:
        capacity = 768
        self.shape, self.capacity = shape, capacity
        self.cache = WordCache(shape, 3, min(capacity, shape.ring or capacity))
        self.kernels = DeviceKernels(
            target, [attention_parts("parts", target, shape), attention_merge("merge", target, shape, False)]
        )
        size = (capacity, shape.kv_heads, shape.head_dim)
        self.key, self.value = (rng.standard_normal(size).astype(shape.kv_dtype) for _ in range(2))
        self.queries = rng.standard_normal((capacity, shape.heads, shape.head_dim)).astype(np.float32)

    def fill(self, sequence: int, slots: np.ndarray) -> None:
        """Write position p at slots[p], the oldest slot that a ring still has last; what is not written is NaN."""
        self.cache.keys[sequence] = self.cache.values[sequence] = 0xFFFFFFFF
        for position, slot in sorted(enumerate(slots), key=lambda each: each[1]):
            place = int(slot) % (self.shape.ring or self.capacity)
            self.cache.write(sequence, place, self.key[position], self.value[position])

    def __call__(self, rows: Sequence[Row]) -> np.ndarray:
        """Return [rows, H, d]."""
        count, shape = len(rows), self.shape
        positions, sequences, starts = (
            np.array([getattr(row, name) for row in rows], np.int32)
            for name in ("position", "sequence", "start")
        )
        gather = np.zeros((count, MAX_GATHER), np.int32)
        for i, row in enumerate(rows):
            gather[i, : len(row.slots)] = row.slots
        blocks = max(row.position for row in rows) // BLOCK + 1
        out = np.full((count, shape.heads, shape.head_dim), np.nan, np.float32)
        table = row_table(count, positions=positions, sequences=sequences, gather_start=starts)
        read = (self.queries[positions], table, gather)
        for first in range(0, count, CHUNK_ROWS):
            chunk = min(CHUNK_ROWS, count - first)
            parts = np.full((blocks, chunk, shape.heads, part_floats(shape)), np.nan, np.float32)
            scalars = (self.capacity, MAX_GATHER, blocks, first)
            self.kernels.call("parts", *read, self.cache.keys, self.cache.values, parts, *scalars, rows=chunk)
            self.kernels.call("merge", parts, table, out, first, rows=chunk)
        return out

    def check(self, position: int, result: np.ndarray) -> None:
        """Compare a row's result [H, d] with float64's, within a bound on the kernels' rounding errors."""
        length = position + 1
        # Runs of positions, blocks of them, and 16 lanes are added up: that many roundings above and below.
        terms = BLOCK + length // BLOCK + 32
        exact, bound = exact_attention(
            self.shape, self.queries[position], self.key, self.value, length, terms
        )
        assert (abs(result - exact) <= bound).all(), f"position {position}"


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("kv_dtype", ("float16", "float32"))
@pytest.mark.parametrize(
    "sizes",
    (
        (9, 3, 64, 0),
        (8, 1, 64, 0),
        (3, 3, 96, 0),
        (4, 1, 256, 0),
        (4, 2, 32, 1),
        (9, 3, 64, 130),
        (4, 1, 256, 512),
    ),
    ids=str,
)
def test_attention(
    target: GpuTarget, sizes: tuple[int, int, int, int], kv_dtype: str, rng: np.random.Generator
) -> None:
    """Against numpy; and the same bits beside other rows, and where a branch is gathered."""
    *heads, window = sizes
    shape = AttentionShape(*heads, 1.0, kv_dtype, None, window, ring_positions(window, 16))
    attention = Attention(target, shape, rng)
    for length in (1, 17, 128, 129, int(rng.integers(130, 700))):
        start = int(rng.integers(max(0, length - 12), length + 1))
        slots = start + rng.permutation(20)[: length - start]
        attention.fill(1, np.arange(length))
        attention.fill(2, np.concatenate([np.arange(start), slots]))
        straight = [in_place(1, position) for position in range(max(0, length - 3), length)]
        branch = [
            Row(2, row.position, start, tuple(map(int, slots[: row.position + 1 - start])))
            for row in straight
        ]
        branch = [row if row.position >= start else in_place(2, row.position) for row in branch]
        together = attention([*branch, *straight])
        for i, row in enumerate(straight):
            alone = attention([row])[0]
            attention.check(row.position, alone)
            assert same_bits(alone, together[i]), "a branch's bits differ"
            assert same_bits(alone, together[len(straight) + i]), "bits differ beside other rows"


def test_attention_says_what_does_not_fit() -> None:
    settings = Settings(DEVICES[0], "float16", 64)
    result = RULES["gpu_attention"]().apply(CachedAttention(32, 1, 64, False), settings)
    assert isinstance(result, Decline) and "32 query heads" in result.reason
    assert str(shared_bytes(AttentionShape(32, 1, 64, 1.0, "float16"))) in result.reason
