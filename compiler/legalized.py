"""The rule that ends every list: any Relax operation that TVM can legalize, as plain loops on one thread."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import ir, relax, tirx

from forerun.compiler.from_onnx import flatten
from forerun.compiler.graph import Graph
from forerun.compiler.tir import Kernel, Parameter
from forerun.errors import CompileError


@dataclass(frozen=True)
class LegalizedGraph:
    """A graph whose nodes are all `relax.call_tir`, and the kernel that each calls."""

    graph: Graph
    kernels: dict[str, Kernel]


def legalize(name: str, module: tvm.IRModule) -> LegalizedGraph:
    """Lower a Relax module to calls of TIR functions and turn those into plain C kernels.

    Raises:
        CompileError: an operation has no legalization, or a shape is not static.
    """
    try:
        module = relax.transform.DecomposeOpsForInference()(module)
        module = relax.transform.LegalizeOps()(module)
        module = relax.transform.DeadCodeElimination(["main"])(module)
    except Exception as error:
        raise CompileError(f"{name}: TVM cannot legalize this graph: {error}") from error
    graph = flatten(name, module["main"])
    kernels: dict[str, Kernel] = {}
    for node in graph.nodes:
        if node.op != "relax.call_tir":
            raise CompileError(f"{name}: {node.op} has no kernel: TVM gives no legalization for it")
        callee = node.call.args[0]
        kernel_name = f"{callee.name_hint}_kernel"
        kernels.setdefault(kernel_name, plain(kernel_name, module[callee]))
        node.detail = kernel_name
    return LegalizedGraph(graph, kernels)


def plain(name: str, function: tirx.PrimFunc) -> Kernel:
    """Return a legalized function over buffers as a kernel over raw pointers."""
    pointers, declarations, parameters = [], [], []
    last = len(function.params) - 1
    for i, buffer in enumerate(function.params):
        if not hasattr(buffer.ty, "storage_scope"):
            raise CompileError(f"{name}: parameter {buffer} is no buffer: the graph's shapes must be static")
        dtype = str(buffer.dtype)
        pointer = tirx.Var(f"p{i}", ir.PointerType(ir.PrimType(dtype), "global"))
        pointers.append(pointer)
        declarations.append(tirx.DeclBuffer(buffer, data=pointer))
        parameters.append(Parameter(f"p{i}", dtype, pointer=True, written=i == last))
    threads = [tirx.Var(word, "int32") for word in ("rows", "tid", "nthreads")]
    body = tirx.SeqStmt([*declarations, function.body])
    made = tirx.PrimFunc([*pointers, *threads], body, None, function.attrs)
    made = made.with_attr("global_symbol", name).with_attr("calling_conv", 1).with_attr("s_tir", True)
    return Kernel(name, made, tuple(parameters))
