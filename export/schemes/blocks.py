"""Unpacking GGUF quantization blocks, as ggml-quants.c lays them out.

Blocks of K-quants hold 256 weights, their scales in two steps: 6 or 8 bits for each group, and a float16 that all of
them are multiplied by. Here the product, which takes up to 19 bits, is rounded to float16: its relative error is at
most 2^-11, its absolute error at most 2^-25 where it is below 2^-14.
"""

from dataclasses import dataclass

import gguf.quants
import numpy as np

from forerun.export.schemes.base import to_float16

# The values of IQ4_NL's 16 codes.
_NONLINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


@dataclass(frozen=True)
class Blocks:
    """Integers [N, K] as stored; scale and, for affine types, minimum: float16 [N, K/32], Q6_K's [N, K/16]."""

    integers: np.ndarray
    scale: np.ndarray
    minimum: np.ndarray | None = None


def unpack_q4_0(data: np.ndarray) -> Blocks:
    """uint8 [N, K/32 · 18] → unsigned nibbles (weight = scale · (nibble - 8))."""
    blocks = data.reshape(data.shape[0], -1, 18)
    return Blocks(_nibbles(blocks[..., 2:]), _half(blocks, 0))


def unpack_q4_1(data: np.ndarray) -> Blocks:
    """uint8 [N, K/32 · 20] → unsigned nibbles (weight = scale · nibble + minimum)."""
    blocks = data.reshape(data.shape[0], -1, 20)
    return Blocks(_nibbles(blocks[..., 4:]), _half(blocks, 0), _half(blocks, 2))


def unpack_q5_0(data: np.ndarray) -> Blocks:
    """uint8 [N, K/32 · 22] → unsigned 5-bit values (weight = scale · (value - 16))."""
    blocks = data.reshape(data.shape[0], -1, 22)
    return Blocks(_five_bits(blocks, 2), _half(blocks, 0))


def unpack_q5_1(data: np.ndarray) -> Blocks:
    """uint8 [N, K/32 · 24] → unsigned 5-bit values (weight = scale · value + minimum)."""
    blocks = data.reshape(data.shape[0], -1, 24)
    return Blocks(_five_bits(blocks, 4), _half(blocks, 0), _half(blocks, 2))


def unpack_q8_0(data: np.ndarray) -> Blocks:
    """uint8 [N, K/32 · 34] → int8 (weight = scale · value)."""
    blocks = data.reshape(data.shape[0], -1, 34)
    values = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return Blocks(values.reshape(data.shape[0], -1), _half(blocks, 0))


def unpack_iq4_nl(data: np.ndarray) -> Blocks:
    """uint8 [N, K/32 · 18] → int8 in -127 … 113 (weight = scale · value)."""
    four = unpack_q4_0(data)
    return Blocks(_NONLINEAR[four.integers], four.scale)


def unpack_q4_k(data: np.ndarray) -> Blocks:
    """uint8 [N, K/256 · 144] → unsigned nibbles (weight = scale · nibble + minimum), both rounded."""
    blocks = data.reshape(data.shape[0], -1, 144)
    scale, minimum = _scales_and_minimums(blocks)
    return Blocks(_nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32)), scale, minimum)


def unpack_q5_k(data: np.ndarray) -> Blocks:
    """uint8 [N, K/256 · 176] → unsigned 5-bit values (weight = scale · value + minimum), both rounded."""
    blocks = data.reshape(data.shape[0], -1, 176)
    scale, minimum = _scales_and_minimums(blocks)
    low = _nibbles(blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32))
    # Bit g of a byte is that of group g.
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    high = (blocks[..., None, 16:48] >> shifts & 1).reshape(low.shape)
    return Blocks(low | high << 4, scale, minimum)


def unpack_q6_k(data: np.ndarray) -> Blocks:
    """uint8 [N, K/256 · 210] → unsigned 6-bit values (weight = scale · (value - 32)), a scale for 16, rounded."""
    blocks = data.reshape(data.shape[0], -1, 210)
    low = _nibbles(blocks[..., :128].reshape(*blocks.shape[:2], 2, 64))
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32) >> shifts & 3
    steps = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float32)
    scale = _half(blocks, 208).astype(np.float32)[..., None] * steps
    return Blocks(low | high.reshape(low.shape) << 4, to_float16(scale.reshape(data.shape[0], -1)))


def _scales_and_minimums(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scales and minimums of Q4_K and Q5_K, float16 [N, K/32]."""
    rows, count = blocks.shape[:2]
    steps = gguf.quants.Q4_K.get_scale_min(np.ascontiguousarray(blocks[..., 4:16]).reshape(-1, 12))
    factors = (_half(blocks, 0).astype(np.float32), -_half(blocks, 2).astype(np.float32))
    scale, minimum = (
        to_float16((factor[..., None] * step.reshape(rows, count, 8).astype(np.float32)).reshape(rows, -1))
        for factor, step in zip(factors, steps, strict=True)
    )
    return scale, minimum


def _half(blocks: np.ndarray, offset: int) -> np.ndarray:
    """The float16 at a byte offset of each block, [N, blocks]."""
    return np.ascontiguousarray(blocks[..., offset : offset + 2]).view(np.float16)[..., 0]


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """[N, …, bytes] → uint8 [N, K]: low nibbles are the first half of what lies together, high ones the second."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)


def _five_bits(blocks: np.ndarray, offset: int) -> np.ndarray:
    """uint8 [N, K]: 32 high bits at a byte offset of each block of 32, then nibbles."""
    high = np.unpackbits(np.ascontiguousarray(blocks[..., offset : offset + 4]), axis=-1, bitorder="little")
    values: np.ndarray = _nibbles(blocks[..., offset + 4 :]) | (high.reshape(blocks.shape[0], -1) << 4)
    return values
