"""What the fusion passes ask of a graph."""

from __future__ import annotations

import numpy as np

from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.operations import WeightRows
from forerun.compiler.schemes import FLOAT32, SCHEMES
from forerun.errors import CompileError

# Operations that move elements without changing them.
LAYOUT_OPS = ("relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze")
# The calls that `converters.py` keeps of the schemes' functions.
DEQUANTIZE = {f"forerun.{function}": function for function, _ in SCHEMES}


def made_by(graph: Graph, value: Value, *ops: str) -> Node | None:
    """Return the node that makes `value` if it is one of `ops`."""
    node = graph.producer(value)
    return node if node is not None and node.op in ops else None


def is_weight(graph: Graph, value: Value) -> bool:
    """Return whether a value is an input of the function."""
    return value in graph.inputs


def weight_rows(graph: Graph, value: Value) -> WeightRows | None:
    """Read a weight matrix [N, K]: an input of the function, or inputs through a scheme's function."""
    if is_weight(graph, value) and len(value.shape) == 2 and value.dtype == "float32":
        return WeightRows(FLOAT32, (value.name,), *map(int, value.shape))
    node = made_by(graph, value, *DEQUANTIZE)
    if node is None or not all(is_weight(graph, part) for part in node.inputs):
        return None
    return quantized_rows(graph, node, [part.name for part in node.inputs])


def quantized_rows(graph: Graph, node: Node, parts: list[str]) -> WeightRows:
    """Describe the weight behind a scheme's function whose inputs come from the function inputs `parts`."""
    element = graph.elements[parts[0]]
    key = (DEQUANTIZE[node.op], element)
    if key not in SCHEMES:
        known = ", ".join(f"{function} of {kind}" for function, kind in SCHEMES)
        raise CompileError(f"{graph.name}: no scheme for {key[0]} of {element}; known: {known}")
    source = graph.input(parts[0])
    assert source is not None
    return WeightRows(SCHEMES[key], tuple(parts), *map(int, source.shape))


def through_layout(graph: Graph, value: Value) -> tuple[Value, list[Node]]:
    """Walk back through layout operations; return where the elements come from and the operations in order."""
    chain: list[Node] = []
    while (node := made_by(graph, value, *LAYOUT_OPS)) is not None:
        chain.insert(0, node)
        value = node.inputs[0]
    return value, chain


def apply_layout(chain: list[Node], array: np.ndarray, sizes: dict[str, int]) -> np.ndarray:
    """Run layout operations on real elements, to see what they do. `sizes` gives symbolic dimensions."""
    for node in chain:
        shape = [sizes.get(d, d) if isinstance(d, str) else d for d in node.output.shape]
        if node.op == "relax.permute_dims":
            axes = node.detail["attrs"].axes
            array = array.transpose(None if axes is None else [int(axis) for axis in axes])
        array = array.reshape(shape)
    return array


def require(condition: bool, graph: Graph, what: str) -> None:
    """Raise a CompileError naming the function where a pattern's side condition does not hold."""
    if not condition:
        raise CompileError(f"{graph.name}: {what}")
