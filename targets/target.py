"""What a target is: data. It names no compiler code; the compiler resolves the rule names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
        tile_rows: most rows one pass over the weights keeps in registers.
        prefetch_bytes: how far ahead of their use weights are asked for; 0 leaves it to the hardware.
        screens_head: 8-bit heads are split in planes of bits, of which bounds on the logits need only one.
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
    tile_rows: int = 8
    prefetch_bytes: int = 0
    screens_head: bool = False
    bit_exact: bool = True
