"""The importer against the ONNX project's own node tests, through the whole compile path on the portable target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_runner import Call, run_graph
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from tiny_models import VARIANTS, write_folder

from forerun.compiler.graph_program import compile_graph
from forerun.export import export_model
from forerun.export.operators import emitted_operators
from forerun.targets import TARGETS

# The operators that export emits; test_export_emits_only_these keeps this list true.
OPERATORS = frozenset(
    {
        *("Add", "Attention", "Cast", "Constant", "DequantizeLinear", "Gather", "Identity", "MatMul", "Mul"),
        *("RMSNormalization", "Reshape", "RotaryEmbedding", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze"),
    }
)

# Element types that export emits. Cases in others are left out: there is no kernel to hold to them.
ELEMENTS = frozenset({"FLOAT", "FLOAT16", "INT64", "INT32", "INT8", "UINT8", "INT4", "UINT4", "BOOL"})

EXCLUDED = {
    "float16 attention": "export computes attention in float32 only; the compiler refuses float16",
    "window": "sliding windows came with opset 25, export writes opset 23; the compiler refuses them",
    "softmax_precision": "softmax in another precision than float32; the compiler refuses it",
    "4-bit cast": "4-bit weights are read by the schemes' functions; Cast to or from 4 bits is never emitted",
    "sequence": "sequences and optionals are no tensors",
    "empty": "tensors without elements: every exported shape has at least one row",
}

# Inputs that export always gives as constants, as the importer wants them: operator → input numbers.
CONSTANT_INPUTS = {"Reshape": (1,), "Squeeze": (1,), "Unsqueeze": (1,)}


def _elements(model: onnx.ModelProto) -> set[str]:
    values = [*model.graph.input, *model.graph.output]
    return {onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}


def _excluded(model: onnx.ModelProto) -> str | None:
    (node,) = model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    elements = _elements(model)
    if any(value.type.WhichOneof("value") != "tensor_type" for value in model.graph.input):
        return "sequence"
    sizes = [d.dim_value for value in model.graph.input for d in value.type.tensor_type.shape.dim]
    if 0 in sizes:
        return "empty"
    if node.op_type == "Attention":
        if "FLOAT16" in elements:
            return "float16 attention"
        if {"left_window_size", "right_window_size"} & attributes.keys():
            return "window"
        if attributes.get("softmax_precision", 1) != 1:
            return "softmax_precision"
    if node.op_type == "Cast" and elements & {"INT4", "UINT4"}:
        return "4-bit cast"
    return None


def _cases() -> Iterator[object]:
    for case in collect_testcases(None):
        nodes = case.model.graph.node
        if (
            len(nodes) == 1
            and nodes[0].op_type in OPERATORS
            and _elements(case.model) <= ELEMENTS | {"UNDEFINED"}
        ):
            reason = _excluded(case.model)
            marks = [pytest.mark.skip(reason=EXCLUDED[reason])] if reason else []
            yield pytest.param(case, id=case.name, marks=marks)


def _array(value: object) -> np.ndarray:
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    narrow = {"int4": np.int8, "uint4": np.uint8}
    return array.astype(narrow[array.dtype.name]) if array.dtype.name in narrow else array


def _with_constants(
    model: onnx.ModelProto, inputs: list[np.ndarray]
) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    baked = onnx.ModelProto()
    baked.CopyFrom(model)
    node = baked.graph.node[0]
    names = {node.input[i] for i in CONSTANT_INPUTS.get(node.op_type, ()) if i < len(node.input)}
    order = [value.name for value in model.graph.input]
    for name in names:
        baked.graph.initializer.append(numpy_helper.from_array(inputs[order.index(name)], name))
    kept = [value for value in baked.graph.input if value.name not in names]
    del baked.graph.input[:]
    baked.graph.input.extend(kept)
    return baked, [x for name, x in zip(order, inputs, strict=True) if name not in names]


@pytest.mark.parametrize("case", _cases())
def test_node(case: object, tmp_path: Path) -> None:
    for number, (given, expected) in enumerate(case.data_sets):
        model, inputs = _with_constants(case.model, [_array(x) for x in given])
        folder = tmp_path / str(number)
        folder.mkdir()
        outputs = run_graph(compile_graph(model, TARGETS["x86-64"], folder), inputs)
        assert len(outputs) == len(expected)
        for got, want in zip(outputs, expected, strict=True):
            exact = _array(want).astype(np.float64)
            assert got.shape == exact.shape
            np.testing.assert_allclose(got.astype(np.float64), exact, rtol=case.rtol, atol=case.atol)


def test_export_emits_only_these(tmp_path: Path) -> None:
    """Biases, head norms, tied and untied, float and quantized: the list above, no more and no less."""
    folders = []
    for variant in ("llama-biased", "qwen2", "qwen3"):
        source = write_folder(tmp_path / f"{variant}-model", seed=1, **VARIANTS[variant])
        quants = ("f32", "q4") if variant == "qwen2" else ("f32",)
        folders += [
            export_model(source, tmp_path / f"{variant}-{quant}", quant).directory for quant in quants
        ]
    assert emitted_operators(folders) == OPERATORS


def test_call_struct() -> None:
    """The runner's mirror of forerun_call names the members of program.h in its order."""
    header = Path(__file__).parents[2] / "runtime/native/include/forerun/program.h"
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
    body = text.split("typedef struct forerun_call {")[1].split("} forerun_call")[0]
    declared = [re.sub(r"\(\*(\w+)\)\(.*", r"\1", line, flags=re.S) for line in body.split(";")[:-1]]
    assert [line.split()[-1].strip("*") for line in declared] == [name for name, *_ in Call._fields_]
