"""What a compilation came to, and why each kernel was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forerun.compiler import emit
from forerun.compiler.graph import Graph
from forerun.compiler.schedules import Choice
from forerun.compiler.schedules.tiling import Tiling


@dataclass(frozen=True)
class CompileReport:
    """What was compiled, and why each kernel was chosen.

    `explanation` has a line for each operation of each distinct module: the rule taken, those that declined; it and
    `kernels` are the first target's. `tuned` names the matmuls that were built with numbers from `forerun tune`.
    `drafts` are the reports of the draft components in the bundle, by name. `notes` say what it lacks, for whom.
    """

    bundle: Path
    targets: tuple[str, ...]
    modules: tuple[str, ...]
    kernels: int
    weights_bytes: int
    library_bytes: int
    seconds: float
    explanation: tuple[str, ...] = field(default=())
    tuned: tuple[str, ...] = ()
    drafts: Mapping[str, CompileReport] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def matmul_tilings(choices: Mapping[str, list[Choice]]) -> dict[str, tuple[Tiling, str]]:
    """Return the numbers of each matmul's kernels, and the name that they are kept by, by the kernels' common name."""
    plans = [choice.plan for some in choices.values() for choice in some]
    return {
        emit.table_name(plan.kernels): (plan.tiling, plan.numbers_name)
        for plan in plans
        if plan.tiling is not None
    }


def explain(graphs: Mapping[str, Graph], choices: Mapping[str, list[Choice]]) -> list[str]:
    """Return a line for every operation: the rule that took it, and who declined and why."""
    lines = []
    for name, graph in graphs.items():
        for node, choice in zip(graph.nodes, choices[name], strict=True):
            kernel = emit.kernel_name(choice.plan)
            declined = "; ".join(f"{rule} declined: {reason}" for rule, reason in choice.declined)
            lines.append(
                f"{name}: {node.op} → {choice.rule} ({kernel})" + (f"; {declined}" if declined else "")
            )
    return lines
