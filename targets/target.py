"""What a target is: data. It names no compiler code; the compiler resolves the rule names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arithmetic:
    """What kernels write differently where an instruction is lacking.

    Attributes:
        fma: a fused multiply-add is one instruction.
        converts_half: float16 vectors are converted by instructions.
        ignores_nan: a maximum that ignores NaN is an instruction, or nearly.
    """

    fma: bool
    converts_half: bool
    ignores_nan: bool


@dataclass(frozen=True)
class Target:
    """One kind of hardware that programs are compiled for.

    Attributes:
        name: what users write after `--target`, and the library's file name in a bundle.
        summary: one line for `forerun list`.
        arch: machine name as `uname -m` gives it; a bundle's library is refused elsewhere.
        llvm: the dict form of TVM's LLVM target (kind, mcpu, mattr, mtriple).
        features: CPU features (Linux /proc/cpuinfo names) that must be present to run.
        fma: True where a fused multiply-add is one instruction. Without it kernels multiply and add
            separately, in the same fixed order.
        rules: for each fused operation, the names of the schedule rules to try, best first.
        weight_layout: how quantized weights are stored, for matmuls and the embedding alike.
        vector_registers: registers of 16 float32 lanes, or what smaller ones amount to.
        tile_rows: most rows one pass over the weights keeps in registers.
        tile_sizes: rows that kernels are made for, where that is not every number up to `tile_rows`.
        prefetch_bytes: how far ahead of their use weights are asked for; 0 leaves it to the hardware. This, `tile_rows`
            and `whole_groups` are defaults: `forerun tune` may find better ones for a matmul on a machine.
        whole_groups: sizes of tiles whose matmuls finish a group of inputs for one row before the next, which
            suits them where the group's weights fit the registers beside the rest.
        matrix_rows: rows of the tiles of a matrix unit, 0 without one. Nothing uses it but matmuls that `forerun tune`
            found faster with it.
        platform: the name of the platform that its programs are compiled for (`targets/platform.py`).
        converts_half, ignores_nan: see `Arithmetic`; where they are not so, LLVM would call a function for every lane.
        bit_exact: the result of a row does not depend on the other rows of the call, the tree or the threads.
    """

    name: str
    summary: str
    arch: str
    llvm: Mapping[str, object]
    features: tuple[str, ...]
    fma: bool
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weight_layout: str = "columns"
    vector_registers: int = 8
    tile_rows: int = 8
    tile_sizes: tuple[int, ...] = ()
    prefetch_bytes: int = 0
    whole_groups: tuple[int, ...] = ()
    matrix_rows: int = 0
    platform: str = "linux-x86-64"
    converts_half: bool = True
    ignores_nan: bool = True
    bit_exact: bool = True

    @property
    def arithmetic(self) -> Arithmetic:
        """What its kernels are written with."""
        return Arithmetic(self.fma, self.converts_half, self.ignores_nan)
