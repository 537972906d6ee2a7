"""RMS norm, SwiGLU or GeGLU, and the residual add."""

from __future__ import annotations

from dataclasses import replace

from forerun.compiler.fuse.match import is_weight, made_by, require
from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.operations import Linear, LinearSwiGlu, Norm, SwiGlu
from forerun.compiler.vector_math import GROUP


def fuse_norm(graph: Graph) -> None:
    """Replace every RMS norm over the last axis of [M, D] rows by a `norm` node."""
    for node in list(graph.nodes):
        if node.op != "relax.nn.rms_norm" or not is_weight(graph, node.inputs[1]):
            continue
        if len(node.inputs[0].shape) != 2:
            continue  # the norm of query and key heads belongs to the attention pattern
        columns = int(node.inputs[0].shape[-1])
        detail = Norm(node.inputs[1].name, columns, float(node.detail["attrs"].epsilon), quantized=False)
        graph.replace([node], [Node("norm", [node.inputs[0]], node.outputs, detail)])


def fuse_swiglu(graph: Graph) -> None:
    """Replace activation(gate) · up by `linear_swiglu`; by linears side by side and `swiglu` where schemes differ."""
    for node in list(graph.nodes):
        if node.op != "relax.multiply" or node not in graph.nodes:
            continue
        found = _gate_and_up(graph, node)
        if found is None:
            continue
        gate, up, extra, activation = found
        columns = gate.detail.columns
        same = gate.detail.scheme == up.detail.scheme and columns % GROUP == 0
        if same:
            detail = LinearSwiGlu(gate.detail.weights[0], up.detail.weights[0], False, activation)
            graph.replace(
                [gate, up, *extra, node], [Node("linear_swiglu", gate.inputs, node.outputs, detail)]
            )
            continue
        both = Value("gate_up", (gate.output.shape[0], 2 * columns), "float32")
        sides = [
            Node("linear", side.inputs, [both], replace(side.detail, first_column=at, stride=2 * columns))
            for side, at in ((gate, 0), (up, columns))
        ]
        swiglu = Node("swiglu", [both], node.outputs, SwiGlu(columns, False, activation))
        graph.replace([gate, up, *extra, node], [*sides, swiglu])


def _gate_and_up(graph: Graph, node: Node) -> tuple[Node, Node, list[Node], str] | None:
    """Match activation(linear) · linear, both linears on the same rows: gate, up, the activation's nodes and name."""
    for activated, other in (node.inputs, node.inputs[::-1]):
        up = made_by(graph, other, "linear")
        gate, extra = _silu_of_linear(graph, activated)
        activation = "silu"
        if gate is None and (gelu := made_by(graph, activated, "relax.nn.gelu_tanh")) is not None:
            gate, extra, activation = made_by(graph, gelu.inputs[0], "linear"), [gelu], "gelu_tanh"
        if gate is None or up is None or gate.inputs != up.inputs:
            continue
        if any(bias is not None for bias in (*gate.detail.biases, *up.detail.biases)):
            continue
        return gate, up, extra, activation
    return None


def _silu_of_linear(graph: Graph, value: Value) -> tuple[Node | None, list[Node]]:
    silu = made_by(graph, value, "relax.nn.silu")
    if silu is not None:
        return made_by(graph, silu.inputs[0], "linear"), [silu]
    product = made_by(graph, value, "relax.multiply")
    if product is None:
        return None, []
    for x, gated in (product.inputs, product.inputs[::-1]):
        sigmoid = made_by(graph, gated, "relax.sigmoid")
        if sigmoid is not None and sigmoid.inputs[0] is x:
            return made_by(graph, x, "linear"), [sigmoid, product]
    return None, []


def fuse_residual(graph: Graph) -> None:
    """Fold `hidden + linear(…)` into the linear, which then adds to the residual stream in place; where a norm comes
    between, into the norm.

    An embedding's rows are the stream's beginning: a projection of features adds to what the lookup wrote.
    """
    for node in list(graph.nodes):
        if node.op != "relax.add":
            continue
        for stream, made in (node.inputs, node.inputs[::-1]):
            maker, lookup = made_by(graph, made, "linear", "norm"), made_by(graph, stream, "embed")
            given = stream.name == "hidden" and is_weight(graph, stream)
            if maker is None or not (given or lookup):
                continue
            require(graph.consumers(made) == [node], graph, "the residual's addend is read elsewhere, too")
            detail: Linear | Norm = replace(maker.detail, add=True)
            if lookup is not None:
                lookup.outputs = node.outputs
            graph.replace([maker, node], [Node(maker.op, maker.inputs, node.outputs, detail)])
            break
