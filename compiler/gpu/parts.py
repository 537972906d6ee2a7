"""The weights that a module's launches are given: whole, or slab by slab (see `slabs.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from forerun.compiler.emit import Module
from forerun.compiler.pack import Packing
from forerun.compiler.schedules.plan import Plan
from forerun.compiler.tir import LANES


class WeightParts:
    """The weights of a module, or runs of them, that its launches are given, numbered in their order."""

    def __init__(self, module: Module) -> None:
        self.weight_bytes, self._next = module.weight_bytes, 0
        # (weight of the module, first byte, bytes) → number
        self.listed: dict[tuple[int, int, int], int] = {}

    def slabs(self, plan: Plan) -> list[SlabParts]:
        """Return the slabs of the next operation's weights, one where they are whole."""
        first, self._next = self._next, self._next + len(plan.weights)
        count = -(-blocks_of(plan.weights[0]) // plan.slab_blocks) if plan.slab_blocks else 1
        return [SlabParts(self, plan, first, slab) for slab in range(count)]


@dataclass(frozen=True)
class SlabParts:
    """Those that launches for one slab of an operation are given; `first` is its first weight in the module."""

    parts: WeightParts
    plan: Plan
    first: int
    slab: int

    def number(self, index: int) -> int:
        """Return the number of the operation's weight `index`."""
        weight, packing, each = self.first + index, self.plan.weights[index], self.plan.slab_blocks
        start, size = 0, self.parts.weight_bytes[weight]
        if each and packing.layout != "vector":
            most = size // blocks_of(packing) * each
            start, size = self.slab * most, min(most, size - self.slab * most)
        return self.parts.listed.setdefault((weight, start, size), len(self.parts.listed))


def blocks_of(packing: Packing) -> int:
    """Return the blocks of 16 columns of a packed matrix."""
    return -(-sum(packing.columns) // LANES)
