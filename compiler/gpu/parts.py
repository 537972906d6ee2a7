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
        self._module, self._plan, self._first, self._next = module, Plan({}, (), ()), 0, 0
        self.listed: dict[
            tuple[int, int, int], int
        ] = {}  # (weight of the module, first byte, bytes) → number

    def begin(self, plan: Plan) -> int:
        """Go on to the next operation's weights; return how many slabs they are."""
        self._plan, self._first, self._next = plan, self._next, self._next + len(plan.weights)
        return -(-blocks_of(plan.weights[0]) // plan.slab_blocks) if plan.slab_blocks else 1

    def of(self, slab: int) -> SlabParts:
        """Return those of one slab."""
        return SlabParts(self, slab)

    def number(self, index: int, slab: int) -> int:
        """Return the number of a slab of the operation's weight `index`."""
        weight, packing, each = self._first + index, self._plan.weights[index], self._plan.slab_blocks
        start, size = 0, self._module.weight_bytes[weight]
        if each and packing.layout != "vector":
            most = size // blocks_of(packing) * each
            start, size = slab * most, min(most, size - slab * most)
        return self.listed.setdefault((weight, start, size), len(self.listed))


@dataclass(frozen=True)
class SlabParts:
    """Those that launches for one slab are given."""

    parts: WeightParts
    slab: int

    def number(self, index: int) -> int:
        """Return the number of the operation's weight `index`."""
        return self.parts.number(index, self.slab)


def blocks_of(packing: Packing) -> int:
    """Return the blocks of 16 columns of a packed matrix."""
    return -(-sum(packing.columns) // LANES)
