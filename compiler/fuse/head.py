"""The head in three forms: all logits; the largest of each block of them; the logits of listed blocks.

Whoever draws a token needs few of the logits (the largest, or the largest k), so the runtime asks for the
maxima of blocks first and then for the blocks that may matter. All three share the norm, the weights and the order
of every sum.
"""

from __future__ import annotations

from dataclasses import replace

from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.operations import Linear
from forerun.errors import CompileError

HEAD = "Head"
# Graph name → what of the head it computes.
FORMS = {HEAD: "logits", "HeadMaxima": "maxima", "HeadBlocks": "blocks"}


def head_forms(graph: Graph) -> dict[str, Graph]:
    """Return the fused graph of the head in each form, by name.

    Raises:
        CompileError: the head does not end in a projection to the logits.
    """
    last = graph.producer(graph.outputs[0])
    if last is None or last.op != "linear" or last.detail.add or len(last.detail.weights) != 1:
        raise CompileError(f"{graph.name}: the result must be a projection to the logits")
    return {name: _form(graph, last, name, form) for name, form in FORMS.items()}


def _form(graph: Graph, last: Node, name: str, form: str) -> Graph:
    detail: Linear = replace(last.detail, head=form)
    result = Value(form, last.output.shape, "float32")
    nodes = [node for node in graph.nodes if node is not last]
    nodes.append(Node("linear", last.inputs, [result], detail))
    return Graph(name, graph.inputs, [result], nodes, graph.elements)
