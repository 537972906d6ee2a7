"""Packing streams weights: memory holds one of them, and what it is packed into."""

import tracemalloc

import numpy as np
import pytest

from forerun.compiler.pack import Packing
from forerun.compiler.schedules.layouts import LAYOUTS
from forerun.compiler.schemes import SCHEMES

SHAPE = (12_000, 512)
FLOAT_BYTES = 4 * SHAPE[0] * SHAPE[1]


@pytest.mark.parametrize("block_layout", LAYOUTS)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_packing_takes_less_than_the_weight_in_float32_and_a_half(scheme: object, block_layout: str) -> None:
    packing = Packing("blocks", ("q",), (SHAPE[0],), block_layout, scheme)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        packed = packing.pack(lambda name: np.ones(SHAPE, np.int8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert packed.nbytes == packing.bytes(SHAPE[1])
    assert packed.nbytes <= peak <= 1.5 * FLOAT_BYTES
