"""Exporting streams weights: memory holds one of them, what is made of it, and little beside."""

import os
import tracemalloc

import numpy as np
import pytest

from forerun.export.component import weight_parts
from forerun.export.policies import Choice
from forerun.export.schemes import SCHEMES
from forerun.models.checkpoint import StoredTensor

SHAPE = (12_000, 512)
FLOAT_BYTES = 4 * SHAPE[0] * SHAPE[1]
# What the threads of an executor work on, a few megabytes each.
SLABS_BYTES = min(32, (os.cpu_count() or 1) + 4) * (4 << 20)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_weight_takes_little_more_than_itself(scheme: str) -> None:
    """The bound of a whole export is one and a half times its largest weight and a gigabyte for everything else."""

    def read() -> np.ndarray:
        return np.random.default_rng(0).standard_normal(SHAPE, np.float32)

    choice = Choice(scheme)
    weight_parts(StoredTensor("F32", (32, 32), 32, lambda: read()[:32, :32]), choice, "warm")
    tracemalloc.start()
    try:
        parts = weight_parts(StoredTensor("F32", SHAPE, 32, read), choice, "head.weight")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert FLOAT_BYTES <= peak <= 1.75 * FLOAT_BYTES + SLABS_BYTES
    whole = SCHEMES[scheme]().quantize(read()[:100])
    assert all(np.array_equal(parts[suffix][:100], part) for suffix, part in whole.items())
