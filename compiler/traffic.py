"""What each kernel of a decoder reads: the table by which a profile turns milliseconds into bytes per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forerun.compiler.emit import Module, kernel_name, wrapped


@dataclass(frozen=True)
class Traffic:
    """Bytes that one kernel of a module reads in one layer, activations left out: they stay in the cache.

    Attributes:
        call_bytes: weights it reads once a call, however many rows.
        row_bytes: weights it looks up for each row.
        position_bytes: KV cache it reads for each position that is attended to,
        window: of which each row sees so many; 0: all.
    """

    module: str
    kernel: str
    call_bytes: int
    row_bytes: int
    position_bytes: int
    window: int


def module_traffic(module: Module) -> list[Traffic]:
    """Return an entry for each kernel of a module, in the order in which it runs them."""
    entries, sizes = [], iter(module.weight_bytes)
    for choice in module.choices:
        plan = choice.plan
        read = [(packing.row_bytes, next(sizes)) for packing in plan.weights]
        call_bytes = sum(size for row_bytes, size in read if not row_bytes)
        row_bytes = sum(row_bytes for row_bytes, _ in read)
        entries.append(
            Traffic(
                module.name,
                kernel_name(plan),
                call_bytes,
                row_bytes,
                plan.position_bytes,
                plan.window,
            )
        )
    return entries


def traffic_table(modules: Sequence[Module]) -> str:
    """Return the C table of all modules' kernels; a kernel's place in it is its number."""
    lines = []
    for entry in (entry for module in modules for entry in module_traffic(module)):
        sizes = f"{entry.call_bytes}, {entry.row_bytes}, {entry.position_bytes}, {entry.window}"
        lines += wrapped(f'{{"{entry.module}", "{entry.kernel}", {sizes}}},', "    ")
    return "\n".join(lines)
