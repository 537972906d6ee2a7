"""Dequantize + MatMul (+ bias) → `linear`; Gather (+ Dequantize) → `embed`."""

from __future__ import annotations

from forerun.compiler.fuse.match import DEQUANTIZE, is_weight, made_by, quantized_rows, weight_rows
from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.operations import Embed, Linear, WeightRows
from forerun.compiler.schemes import FLOAT32


def fuse_linear(graph: Graph) -> None:
    """Replace every x · Wᵀ (+ bias) whose W is a weight by one `linear` node."""
    for node in list(graph.nodes):
        if node.op != "relax.matmul":
            continue
        transpose = made_by(graph, node.inputs[1], "relax.permute_dims")
        rows = weight_rows(graph, transpose.inputs[0]) if transpose is not None else None
        if rows is None:
            continue
        old, output, bias = [node], node.output, None
        following = graph.consumers(node.output)
        if len(following) == 1 and following[0].op == "relax.add":
            other = next(value for value in following[0].inputs if value is not node.output)
            if is_weight(graph, other) and other.shape == (rows.columns,):
                old, output, bias = [node, following[0]], following[0].output, other.name
        detail = Linear((rows,), (bias,), first_column=0, stride=rows.columns, add=False)
        graph.replace(old, [Node("linear", [node.inputs[0]], [output], detail)])
    graph.remove_unused()


def fuse_embed(graph: Graph) -> None:
    """Replace a lookup of rows of a weight, dequantized after it where it is quantized, by one `embed` node; a factor
    of the rows becomes part of it.
    """
    for node in list(graph.nodes):
        table, takes = _lookup(graph, node)
        if table is None:
            continue
        old, factor = [node], 1.0
        following = graph.consumers(node.output)
        if len(following) == 1 and following[0].op == "relax.multiply":
            other = next(value for value in following[0].inputs if value is not node.output)
            if other.constant is not None and other.constant.size == 1:
                old, factor = [node, following[0]], float(other.constant.reshape(-1)[0])
        graph.replace(old, [Node("embed", [takes[0].inputs[1]], old[-1].outputs, Embed(table, factor))])
    graph.remove_unused()


def _lookup(graph: Graph, node: Node) -> tuple[WeightRows | None, list[Node]]:
    if node.op == "relax.take" and is_weight(graph, node.inputs[0]) and node.inputs[0].dtype == "float32":
        if any(user.op in DEQUANTIZE for user in graph.consumers(node.output)):
            return None, []
        table = node.inputs[0]
        return WeightRows(FLOAT32, (table.name,), *map(int, table.shape)), [node]
    if node.op not in DEQUANTIZE:
        return None, []
    takes = [made_by(graph, part, "relax.take") for part in node.inputs]
    if any(take is None for take in takes):
        return None, []
    found = [take for take in takes if take is not None]
    tables = [_widened(graph, take.inputs[0]) for take in found]
    if not all(is_weight(graph, table) for table in tables):
        return None, []
    return quantized_rows(graph, node, [table.name for table in tables]), found


def _widened(graph: Graph, table: Value) -> Value:
    """Return the table itself where an export widens 4-bit elements, of which Gather takes none; here all of them
    lie in whole bytes already."""
    cast = made_by(graph, table, "relax.astype")
    return table if cast is None else cast.inputs[0]
