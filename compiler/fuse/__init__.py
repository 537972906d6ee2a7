"""The fusion passes, in the order they run."""

from __future__ import annotations

from collections.abc import Callable

from forerun.compiler.fuse.attention import fuse_attention
from forerun.compiler.fuse.feed_forward import fuse_norm, fuse_residual, fuse_swiglu
from forerun.compiler.fuse.forms import choose_forms
from forerun.compiler.fuse.linear import fuse_embed, fuse_linear
from forerun.compiler.graph import Graph

PASSES: tuple[Callable[[Graph], None], ...] = (
    fuse_embed,
    fuse_linear,
    fuse_norm,
    fuse_attention,
    fuse_swiglu,
    fuse_residual,
    choose_forms,
)


def fuse(graph: Graph) -> None:
    """Run every pass on a graph, in place."""
    for run in PASSES:
        run(graph)
