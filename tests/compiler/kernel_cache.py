"""A KV cache for tests of kernels."""

from __future__ import annotations

import numpy as np
from kernel_runner import aligned

from forerun.compiler.schedules.rope import AttentionShape


class Cache:
    """A cache of one layer with `sequences` sequences, in the layout of program.h."""

    def __init__(self, shape: AttentionShape, sequences: int, capacity: int) -> None:
        self.shape, self.capacity, self.kind = shape, capacity, np.dtype(shape.kv_dtype)
        self.keys = aligned((sequences, shape.kv_heads, capacity // 16, shape.head_dim, 16), self.kind)
        self.values = aligned((sequences, shape.kv_heads, capacity, shape.head_dim), self.kind)

    def key(self, sequence: int, slot: int) -> np.ndarray:
        """[Kv, d]."""
        return self.keys[sequence, :, slot // 16, :, slot % 16]

    def write(self, sequence: int, slot: int, key: np.ndarray, value: np.ndarray) -> None:
        """Put one position's key and value, [Kv, d] each, at a slot."""
        self.keys[sequence, :, slot // 16, :, slot % 16] = key
        self.values[sequence, :, slot] = value
