"""What a schedule rule returns: kernels, the weights they read, and where each argument comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from forerun.compiler.operations import Operation
from forerun.compiler.pack import Packing
from forerun.compiler.schedules.tiling import Tiling, check_tiling, default_tiling
from forerun.compiler.tir import Kernel
from forerun.targets import Target

# Up to this many rows every thread runs a row-wise kernel for itself, which costs less than a barrier.
ALONE_ROWS = 8

# In the order of vector_math.QUANTIZED_OUTPUTS.
QUANTIZED_PARTS = ("values", "low", "scale", "sum", "wide_sum", "scaled_sum")


@dataclass(frozen=True)
class Input:
    """The node's input number `index`; `part` of it where it is quantized."""

    index: int
    part: str = "values"


@dataclass(frozen=True)
class Output:
    """The node's output, or a part of it."""

    part: str = "values"


@dataclass(frozen=True)
class Packed:
    """The plan's weight number `index`."""

    index: int


@dataclass(frozen=True)
class Field:
    """A member of the call struct."""

    name: str


@dataclass(frozen=True)
class Private:
    """A region of the thread's scratch: `tail` (gathered keys), `scores` or `parts` of attention."""

    region: str


@dataclass(frozen=True)
class SharedParts:
    """Attention's parts, in the arena."""


Argument = Input | Output | Packed | Field | Private | SharedParts


@dataclass(frozen=True)
class Stage:
    """One of several kernels that run an operation, with an argument for each of its parameters."""

    kernel: Kernel
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Plan:
    """How one operation runs.

    Attributes:
        kernels: tile rows → kernel; the single key 0 where one kernel takes any number of rows.
        weights: packed arrays, per layer.
        arguments: one for each parameter of the kernels.
        by_row: the kernel shares rows among threads, so that for few rows each thread may as well do all of them.
        position_bytes: what it reads of the KV cache for each position that the call attends to,
        window: of which a row sees so many; 0: all.
        few: what runs instead for few rows: the threads share the first stage and meet, then each runs the second
            for itself.
        tiling: the numbers of a matmul's kernels,
        numbers_name: and the name that they are kept by.
        slab_blocks: blocks of 16 columns of its matrix that a launch takes, where that is not all of them.
    """

    kernels: Mapping[int, Kernel]
    weights: tuple[Packing, ...]
    arguments: tuple[Argument, ...]
    by_row: bool = False
    tiling: Tiling | None = None
    numbers_name: str = ""
    position_bytes: int = 0
    window: int = 0
    few: tuple[Stage, Stage] | None = None
    slab_blocks: int = 0

    @property
    def stages(self) -> tuple[Kernel, ...]:
        """The kernels of `few`."""
        return tuple(stage.kernel for stage in self.few or ())


@dataclass(frozen=True)
class Decline:
    """Why a rule does not apply."""

    reason: str


@dataclass(frozen=True)
class Settings:
    """What kernels are built for, beside the operation: the target, the cache's element, the gather limit, and
    the numbers of matmuls that were tuned, by the name of their kernels."""

    target: Target
    kv_dtype: str
    max_gather: int
    tuned: Mapping[str, Tiling] = field(default_factory=dict)

    def tiling(self, name: str) -> Tiling:
        """Return the numbers for a matmul's kernels; OptionError if they ask for what the target has not."""
        tiling = self.tuned.get(name) or default_tiling(self.target)
        check_tiling(name, tiling, self.target)
        return tiling


class Rule(Protocol):
    """A schedule rule. It takes numbers from the target, never its name."""

    name: str

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Return a plan for the operation, or the reason why this rule has none."""
