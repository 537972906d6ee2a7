"""Decide which activations are quantized: those that a matmul with quantized weights reads."""

from __future__ import annotations

from dataclasses import replace

from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.operations import Quantize
from forerun.compiler.schemes import Scheme
from forerun.compiler.vector_math import GROUP

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
    """Make producers write the form their readers want; put a `quantize` behind those that cannot or must do both."""
    for node in [node for node in graph.nodes if wanted_scheme(node) is not None]:
        scheme = wanted_scheme(node)
        assert scheme is not None
        if not scheme.quantized:
            continue
        value = node.inputs[0]
        maker = graph.producer(value)
        if maker is None or not _can_quantize(graph, maker):
            _quantize_before(graph, node, value)
        elif not maker.detail.quantized:
            maker.detail = replace(maker.detail, quantized=True)


def _can_quantize(graph: Graph, maker: Node) -> bool:
    """Whether a node can write quantized rows itself, for all that read them."""
    if maker.op == "quantize":
        return True
    if maker.op not in _PRODUCERS:
        return False
    if maker.op == "cached_attention" and maker.detail.head_dim % GROUP:
        return False  # a group of columns would belong to two heads, hence to two items of work
    wanted = [wanted_scheme(reader) for reader in graph.consumers(maker.output)]
    return all(scheme is not None and scheme.quantized for scheme in wanted)


def _quantize_before(graph: Graph, node: Node, value: Value) -> None:
    """Give every reader of `value` that wants it quantized the output of a new `quantize` node."""
    quantized = Value(f"{value.name}_quantized", value.shape, "int8")
    at = graph.nodes.index(node)
    made = Node("quantize", [value], [quantized], Quantize(int(value.shape[-1])))
    graph.nodes.insert(at, made)
    for reader in graph.consumers(value):
        scheme = wanted_scheme(reader)
        if scheme is not None and scheme.quantized:
            reader.inputs = [quantized if item is value else item for item in reader.inputs]
