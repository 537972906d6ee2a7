"""Unpacking GGUF quantization blocks of 32 weights, as ggml-quants.c lays them out."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Blocks:
    """Integers [N, K] as stored, scale float16 [N, K/32] and, for affine types, minimum float16 [N, K/32]."""

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
    high = np.unpackbits(np.ascontiguousarray(blocks[..., 2:6]), axis=-1, bitorder="little")
    return Blocks(_nibbles(blocks[..., 6:]) | (high.reshape(data.shape[0], -1) << 4), _half(blocks, 0))


def unpack_q8_0(data: np.ndarray) -> Blocks:
    """uint8 [N, K/32 · 34] → int8 (weight = scale · value)."""
    blocks = data.reshape(data.shape[0], -1, 34)
    values = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return Blocks(values.reshape(data.shape[0], -1), _half(blocks, 0))


def _half(blocks: np.ndarray, offset: int) -> np.ndarray:
    """The float16 at a byte offset of each block, [N, K/32]."""
    return np.ascontiguousarray(blocks[..., offset : offset + 2]).view(np.float16)[..., 0]


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """[N, G, 16] bytes → uint8 [N, G · 32]: low nibbles are the first half of a group, high ones the
    second.
    """
    return np.concatenate([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)
