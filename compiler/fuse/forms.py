"""Decide which activations are quantized: those that a matmul with quantized weights reads."""

from __future__ import annotations

from dataclasses import replace

from forerun.compiler.fuse.match import require
from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.schemes import Scheme

_PRODUCERS = ("norm", "cached_attention", "linear_swiglu", "swiglu")


def wanted_scheme(node: Node) -> Scheme | None:
    """Return the weight scheme of a node that multiplies by weights."""
    if node.op == "linear":
        scheme: Scheme = node.detail.scheme
        return scheme
    if node.op == "linear_swiglu":
        scheme = node.detail.gate.scheme
        return scheme
    return None


def choose_forms(graph: Graph) -> None:
    """Make every producer write the form its readers want; one that has readers of both kinds runs twice."""
    for node in list(graph.nodes):
        if node.op not in _PRODUCERS:
            continue
        readers = graph.consumers(node.output)
        quantized = [reader for reader in readers if (wanted_scheme(reader) or _FLOAT).quantized]
        if not quantized:
            continue
        form = Node(node.op, node.inputs, node.outputs, replace(node.detail, quantized=True))
        if len(quantized) == len(readers):
            graph.replace([node], [form])
            continue
        require(node.op == "norm", graph, f"{node.op} feeds matmuls with quantized and with float weights")
        copy = Value(f"{node.output.name}_quantized", node.output.shape, "int8")
        form.outputs = [copy]
        graph.replace([node], [node, form])
        for reader in quantized:
            reader.inputs = [copy if value is node.output else value for value in reader.inputs]
    for node in graph.nodes:
        if (wanted_scheme(node) or _FLOAT).quantized:
            maker = graph.producer(node.inputs[0])
            known = maker is not None and maker.op in _PRODUCERS
            require(
                known,
                graph,
                f"{node.op} with quantized weights reads {node.inputs[0].name}, which is not quantized",
            )


_FLOAT = Scheme("float32", 0)
