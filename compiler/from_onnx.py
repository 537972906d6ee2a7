"""From an ONNX function or graph to Relax, and from Relax to the compiler's flat graph.

TVM's importer does the work; what it lacks is in `converters`. A module-local function is imported as a graph of
its own whose weights are inputs, so that a body shared by thirty layers is read once.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import tvm
from onnx import helper
from tvm import ir, relax
from tvm.relax.frontend.onnx import onnx_frontend

from forerun.compiler.converters import COMPOSITES, CONVERTERS
from forerun.compiler.graph import Dimension, Graph, Node, Value
from forerun.errors import CompileError

_WIDER = {
    onnx.TensorProto.INT4: onnx.TensorProto.INT8,
    onnx.TensorProto.UINT4: onnx.TensorProto.UINT8,
}


class Importer(onnx_frontend.ONNXGraphImporter):
    """TVM's importer with our converters first.

    `whole` names operators kept as one external call, for the fusion passes to recognize.
    """

    def __init__(self, whole: frozenset[str]) -> None:
        super().__init__(shape_dict={}, dtype_dict={}, keep_params_in_input=False, sanitize=False)
        self._whole = whole

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        known = set(onnx_frontend._get_convert_map()) | set(CONVERTERS) | set(COMPOSITES) | {"Constant"}
        missing = sorted({node.op_type for node in graph.node} - known)
        if missing:
            raise CompileError(f"ONNX operators not supported by the compiler: {', '.join(missing)}")

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> relax.Expr:
        if op_name in self._whole:
            return self.bb.normalize(COMPOSITES[op_name](self.bb, inputs, attrs))
        if op_name in CONVERTERS:
            return self.bb.normalize(CONVERTERS[op_name](self.bb, inputs, attrs))
        return super()._convert_operator(op_name, inputs, attrs, opset)

    def _parse_array(self, tensor: onnx.TensorProto) -> Any:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype.name in ("int4", "uint4", "int2", "uint2"):
            # TVM's tensors have no such types: one element a byte.
            array = array.astype("uint8" if array.dtype.name.startswith("u") else "int8")
        return tvm.runtime.tensor(array)


def import_module(graph: onnx.GraphProto, opset: int, whole: frozenset[str] = frozenset()) -> tvm.IRModule:
    """Import an ONNX graph to Relax.

    Args:
        graph: inputs typed; dimensions may be symbolic.
        opset: version of the default domain.
        whole: operators of `converters.COMPOSITES` to keep as one node.

    Raises:
        CompileError: an operator is not supported, or TVM cannot import the graph.
    """
    importer = Importer(whole)
    graph = _widened(graph)
    log = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(log):
        warnings.simplefilter("ignore")
        try:
            return importer.from_onnx(graph, opset)
        except CompileError:
            raise
        except Exception as error:
            raise CompileError(f"TVM could not import {graph.name!r}: {error}") from error


def _widened(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Return the graph with 4-bit inputs typed as whole bytes, which is how they are held from here on."""
    widened = onnx.GraphProto()
    widened.CopyFrom(graph)
    for value in widened.input:
        tensor_type = value.type.tensor_type
        tensor_type.elem_type = _WIDER.get(tensor_type.elem_type, tensor_type.elem_type)
    return widened


def import_function(
    function: onnx.FunctionProto, inputs: Mapping[str, tuple[int, Sequence[Dimension]]], whole: frozenset[str]
) -> Graph:
    """Import a model-local function as a graph.

    Args:
        function: the function; its outputs need no types.
        inputs: for each input its ONNX element type and shape.
        whole: as for `import_module`.
    """
    infos = [
        helper.make_tensor_value_info(name, inputs[name][0], list(inputs[name][1])) for name in function.input
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in function.output]
    graph = helper.make_graph(list(function.node), function.name, infos, outputs)
    opset = next(entry.version for entry in function.opset_import if entry.domain in ("", "ai.onnx"))
    imported = flatten(function.name, import_module(graph, opset, whole)["main"])
    imported.elements = {name: onnx.TensorProto.DataType.Name(inputs[name][0]).lower() for name in inputs}
    return imported


def flatten(name: str, function: relax.Function) -> Graph:
    """Turn a Relax function of one dataflow block into a graph."""
    values: dict[relax.Var, Any] = {}
    nodes: list[Node] = []

    def tensor(expression: Any) -> Any:
        if isinstance(expression, relax.Var):
            return values[expression]
        if isinstance(expression, ir.GenericConst):
            array = expression.value.numpy()
            return Value(f"constant{len(nodes)}", tuple(array.shape), array.dtype.name, array)
        if isinstance(expression, relax.TupleGetItem):
            return tensor(expression.tuple_value)[expression.index]
        assert isinstance(expression, relax.Tuple | tuple | list), f"unexpected {type(expression)}"
        return [tensor(item) for item in expression]

    for parameter in function.params:
        values[parameter] = _value(parameter.name, parameter.ty)
    for block in function.body.blocks:
        for binding in block.bindings:
            values[binding.var] = _bind(binding, tensor, nodes)
    outputs = tensor(function.body.body)
    inputs = [values[parameter] for parameter in function.params]
    return Graph(name, inputs, outputs if isinstance(outputs, list) else [outputs], nodes)


def _bind(binding: relax.VarBinding, tensor: Any, nodes: list[Node]) -> Any:
    call = binding.value
    if not isinstance(call, ir.Call) or isinstance(call, relax.TupleGetItem | relax.Tuple):
        return tensor(call)
    if isinstance(binding.var.ty, relax.ShapeType):
        return None  # a shape taken for its own sake: the values that use it carry their own
    inputs: list[Value] = []
    shapes = []
    for argument in call.args:
        if isinstance(argument, relax.ShapeExpr):
            shapes.append(_shape(argument.values))
        elif isinstance(argument, relax.Var | ir.GenericConst | relax.Tuple | relax.TupleGetItem):
            found = tensor(argument)
            inputs.extend(found if isinstance(found, list) else [found] if found is not None else [])
    op = (
        str(call.op.global_symbol)
        if isinstance(call.op, relax.ExternFunc)
        else str(getattr(call.op, "name", call.op))
    )
    name = binding.var.name
    if isinstance(binding.var.ty, relax.TupleType):
        outputs = [_value(f"{name}_{i}", field) for i, field in enumerate(binding.var.ty.fields)]
    else:
        outputs = [_value(name, binding.var.ty)]
    nodes.append(Node(op, inputs, outputs, {"attrs": call.attrs, "shapes": shapes}, call))
    return outputs if isinstance(binding.var.ty, relax.TupleType) else outputs[0]


def _value(name: str, ty: relax.TensorType) -> Value:
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        raise CompileError(f"{name} has no known shape (its type is {ty})")
    return Value(name, _shape(ty.shape.values), str(ty.dtype))


def _shape(values: Sequence[Any]) -> tuple[Dimension, ...]:
    return tuple(int(v) if hasattr(v, "value") else str(v) for v in values)
