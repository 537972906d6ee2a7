"""Which standard operators exported models use."""

from collections.abc import Iterable
from pathlib import Path

from onnx import ModelProto

from forerun.export.reader import read_graph


def emitted_operators(directories: Iterable[Path | str]) -> set[str]:
    """Names of the standard operators in the given export directories; raises `ExportError`."""
    return {name for directory in directories for name in model_operators(read_graph(directory))}


def model_operators(model: ModelProto) -> set[str]:
    """Names of the standard operators in a model's graph and in the functions it carries."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return {node.op_type for node in nodes if node.domain in ("", "ai.onnx")}
