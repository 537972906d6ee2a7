"""Weights larger than the largest piece of memory that a device gives: kernels run once for each slab of them.

A slab is a run of a matrix's blocks of 16 columns. All slabs of a matrix have the same number of them, but the last
one; all forms of the head, and the embedding that shares its table, have the same slabs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.writer import GpuWriter
from forerun.compiler.schemes import Scheme
from forerun.compiler.tir import LANES, Expr
from forerun.errors import CompileError
from forerun.targets.gpu import GpuTarget

# A kernel's scalar: the number of the slab that a launch is for.
SLAB = "slab"
# Blocks that any kernel takes at a time.
_TOGETHER = 4


@dataclass(frozen=True)
class Slabs:
    """How a matrix of `blocks` blocks lies on a device: in slabs of `each` blocks, the last one perhaps of fewer."""

    blocks: int
    each: int

    @property
    def count(self) -> int:
        """Slabs of the matrix, 1 where it is whole."""
        return -(-self.blocks // self.each)

    @property
    def scalars(self) -> dict[str, str]:
        """Scalars that a kernel takes for it, with their types."""
        return {SLAB: "int32"} if self.count > 1 else {}

    def first(self, writer: GpuWriter) -> Expr | int:
        """Return the first block of the launch's slab."""
        return tir.bind(writer.scalars[SLAB] * self.each) if self.count > 1 else 0

    def within(self, writer: GpuWriter, block: Expr) -> Expr:
        """Return a block's number in the launch's slab; of one that is in another, some block of this one."""
        if self.count == 1:
            return block
        place = tir.bind(block - self.first(writer))
        return tir.bind(op.max(op.min(place, self.each - 1), 0))

    def when_mine(self, writer: GpuWriter, block: Expr) -> AbstractContextManager[object]:
        """Open a part of the kernel that runs if a block is there and in the launch's slab."""
        if self.count == 1:
            return nullcontext()
        slab = tirx.floordiv(block, self.each)
        return tir.when(tirx.all(slab == writer.scalars[SLAB], block < self.blocks))


def slabs_of(target: GpuTarget, columns: int, inputs: int, scheme: Scheme) -> Slabs:
    """Return the slabs of a matrix [columns, inputs].

    Raises:
        CompileError: some columns alone are larger than a piece of the device's memory.
    """
    blocks, block_bytes = -(-columns // LANES), LANES * inputs * (scheme.bits or 32) // 8
    if not target.largest_piece or blocks * block_bytes <= target.largest_piece:
        return Slabs(blocks, blocks)
    most = target.largest_piece // block_bytes // _TOGETHER * _TOGETHER
    if most == 0:
        raise CompileError(
            f"{_TOGETHER * LANES} columns of a matrix take {_TOGETHER * block_bytes} bytes; {target.name} has at most"
            f" {target.largest_piece} in one piece"
        )
    each = -(-blocks // -(-blocks // most))
    return Slabs(blocks, -(-each // _TOGETHER) * _TOGETHER)
