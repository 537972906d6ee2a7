"""Schedule rules by name, and the choice among them: the first of the target's list that does not decline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from forerun.compiler.gpu.rules import (
    GpuAttention,
    GpuEmbed,
    GpuMatmul,
    GpuMatmulFloat,
    GpuNorm,
    GpuQuantize,
    GpuRopeStore,
    GpuSwiGlu,
)
from forerun.compiler.graph import Node
from forerun.compiler.schedules.matmul_rules import (
    MatmulAmx,
    MatmulAvx2,
    MatmulAvxVnni,
    MatmulDotprod,
    MatmulFloat,
    MatmulGrouped,
    MatmulI8mm,
    MatmulNeon,
    MatmulVnni,
)
from forerun.compiler.schedules.plan import Decline, Plan, Rule, Settings
from forerun.compiler.schedules.row_rules import (
    AttentionBlocked,
    EmbedRows,
    QuantizeRows,
    RmsNorm,
    RopeStoreRule,
    SwiGluRows,
)
from forerun.errors import CompileError

ALL_RULES: tuple[type[Rule], ...] = (
    MatmulAmx,
    MatmulVnni,
    MatmulAvxVnni,
    MatmulAvx2,
    MatmulI8mm,
    MatmulDotprod,
    MatmulNeon,
    MatmulGrouped,
    MatmulFloat,
    EmbedRows,
    RmsNorm,
    QuantizeRows,
    SwiGluRows,
    RopeStoreRule,
    AttentionBlocked,
    GpuMatmul,
    GpuMatmulFloat,
    GpuEmbed,
    GpuNorm,
    GpuQuantize,
    GpuSwiGlu,
    GpuRopeStore,
    GpuAttention,
)
RULES: Mapping[str, type[Rule]] = MappingProxyType({rule.name: rule for rule in ALL_RULES})

# The operations of fused graphs and the key of the target's rule list that each looks up.
RULE_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "embed": "embed",
        "norm": "norm",
        "quantize": "quantize",
        "linear": "matmul",
        "linear_swiglu": "matmul_swiglu",
        "swiglu": "swiglu",
        "rope_store": "rope_store",
        "cached_attention": "cached_attention",
    }
)


@dataclass(frozen=True)
class Choice:
    """The rule taken for a node, and those that declined before it with their reasons."""

    rule: str
    plan: Plan
    declined: tuple[tuple[str, str], ...]


def schedule(function: str, node: Node, settings: Settings) -> Choice:
    """Return the first rule of the target's list that has a plan for a fused node.

    Raises:
        CompileError: the node is no fused operation, or every rule declines; the message lists the reasons.
    """
    if node.op not in RULE_KEYS:
        raise CompileError(
            f"{function}: {node.op} was left over by the fusion passes and has no kernel for cached rows"
        )
    declined: list[tuple[str, str]] = []
    for name in settings.target.rules[RULE_KEYS[node.op]]:
        rule: Rule = RULES[name]()
        result = rule.apply(node.detail, settings)
        if not isinstance(result, Decline):
            return Choice(name, result, tuple(declined))
        declined.append((name, result.reason))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in declined)
    raise CompileError(f"{function}: no kernel for {node.op} on {settings.target.name} ({reasons})")
