"""The written ONNX file: functions, names, operators, external data."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_models import STRUCTURES, TinyExport

from forerun.export import ExportReport
from forerun.export.operators import emitted_operators
from forerun.export.reader import read_graph, read_manifest
from forerun.export.signature import DOMAIN

WEIGHTS = {
    "Attention": ["norm.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"],
    "FeedForward": ["norm.weight", "gate_proj.weight", "up_proj.weight", "down_proj.weight"],
    "Embed": ["weight"],
    "Head": ["norm.weight", "weight"],
}
ACTIVATIONS = {
    "Attention": ["hidden", "positions", "tree_mask", "past_key", "past_value"],
    "FeedForward": ["hidden"],
    "Embed": ["token_ids"],
    "Head": ["hidden"],
}
OPERATORS = {
    *("Add", "Attention", "Cast", "Constant", "DequantizeLinear", "Gather", "Identity", "MatMul", "Mul"),
    *("RMSNormalization", "Reshape", "RotaryEmbedding", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze"),
}


def functions_of(model: onnx.ModelProto) -> dict[str, onnx.FunctionProto]:
    return {function.name: function for function in model.functions}


@pytest.mark.real_model
def test_thirty_layers_are_one_attention_and_one_feed_forward_function(smollm2_keep: ExportReport) -> None:
    model = read_graph(smollm2_keep.directory)
    calls = Counter(node.op_type for node in model.graph.node)
    assert calls == {"Embed": 1, "Attention": 30, "FeedForward": 30, "Head": 1}
    dequantizers = {"DequantizeAffine", "DequantizeSymmetric"}
    assert functions_of(model).keys() == {"Embed", "Attention", "FeedForward", "Head", *dequantizers}
    assert all(node.domain == DOMAIN for node in model.graph.node)


@pytest.mark.real_model
def test_tied_weights_are_stored_once(smollm2_keep: ExportReport) -> None:
    model = read_graph(smollm2_keep.directory)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("head.weight")]
    assert list(model.graph.node[-1].input)[2:] == ["embed.weight.q", "embed.weight.scale"]


@pytest.mark.parametrize("variant", STRUCTURES)
def test_functions_have_the_inputs_of_the_signature(variant: str, tiny_export: TinyExport) -> None:
    functions = functions_of(read_graph(tiny_export(variant, "f32")))
    config = read_manifest(tiny_export(variant, "f32")).config
    biased = (["q_proj", "k_proj", "v_proj"] * config.attention_bias) + (["o_proj"] * config.output_bias)
    extra = [f"{name}.bias" for name in biased]
    extra += ["q_norm.weight", "k_norm.weight"] * config.qk_norm
    for name, function in functions.items():
        kind = "Attention" if name.startswith("Attention") else name
        expected = ACTIVATIONS[kind] + WEIGHTS[kind]
        if kind == "Attention":
            expected += extra + ["rope.cos", "rope.sin"] * ("Unrotated" not in name)
        if kind in ("Attention", "FeedForward"):
            expected += ["post_norm.weight"] * config.post_norms
        if name.endswith("InWindow"):
            expected[expected.index("tree_mask")] = "window_mask"
        assert list(function.input) == expected


def test_layers_with_a_window_have_a_function_and_tables_of_their_own(tiny_export: TinyExport) -> None:
    model = read_graph(tiny_export("gemma3", "f32"))
    calls = [node for node in model.graph.node if node.op_type.startswith("Attention")]
    assert [node.op_type for node in calls] == ["AttentionInWindow", "Attention", "AttentionInWindow"]
    tables = [[name for name in node.input if ".cos" in name or ".sin" in name] for node in calls]
    own = ["window_rope.cos", "window_rope.sin"]
    assert tables == [own, ["rope.cos", "rope.sin"], own]
    assert [value.name for value in model.graph.input][:4] == [
        *("token_ids", "positions", "tree_mask", "window_mask")
    ]


def test_quantized_weights_become_their_parts(tiny_export: TinyExport) -> None:
    functions = functions_of(read_graph(tiny_export("llama-multi-head", "q4")))
    parts = [f"{name}.{part}" for name in WEIGHTS["FeedForward"][1:] for part in ("q", "scale", "minimum")]
    assert list(functions["FeedForward"].input) == ["hidden", "norm.weight", *parts]
    assert list(functions["Embed"].input) == ["token_ids", "weight.q", "weight.scale"]
    embed = [node.op_type for node in functions["Embed"].node]
    assert embed == ["Gather", "Gather", "DequantizeSymmetric"], (
        "rows are gathered before they are dequantized"
    )


def test_graph_signature(tiny_export: TinyExport) -> None:
    model = read_graph(tiny_export("llama-multi-head", "f32"))
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert [value.name for value in model.graph.input] == [
        *("token_ids", "positions", "tree_mask"),
        *("past_key.0", "past_value.0", "past_key.1", "past_value.1"),
    ]
    assert [value.name for value in model.graph.output] == [
        *("logits", "tap.0", "tap.1"),
        *("present_key.0", "present_value.0", "present_key.1", "present_value.1"),
    ]
    assert shapes["tree_mask"] == ["M", "T"]
    assert shapes["past_key.1"] == [4, "P", 16]
    assert shapes["present_value.0"] == [4, "T", 16]
    assert shapes["tap.0"] == ["M", 64]
    assert shapes["logits"] == ["M", 288]


@pytest.mark.parametrize(("variant", "quant"), [("qwen3", "q4"), ("llama-biased", "f32"), ("qwen2", "q8")])
def test_the_checker_accepts_the_file(variant: str, quant: str, tiny_export: TinyExport) -> None:
    onnx.checker.check_model(str(tiny_export(variant, quant) / "model.onnx"))


def test_only_standard_operators_of_opset_23(tiny_export: TinyExport) -> None:
    directories = [tiny_export("qwen3", "q4"), tiny_export("llama-biased", "f32"), tiny_export("qwen2", "q8")]
    assert emitted_operators(directories) <= OPERATORS
    for directory in directories:
        model = read_graph(directory)
        versions = {(opset.domain, opset.version) for opset in model.opset_import}
        assert versions == {("", 23), (DOMAIN, 1)}
        known = {*functions_of(model)}
        nodes = [node for function in model.functions for node in function.node]
        assert {node.op_type for node in nodes if node.domain == DOMAIN} <= known
        assert {node.domain for node in nodes} <= {"", DOMAIN}
        assert not [node for node in nodes if node.metadata_props or node.doc_string], (
            "traces leave paths behind"
        )


def test_nothing_in_a_body_is_left_over(tiny_export: TinyExport) -> None:
    for function in read_graph(tiny_export("qwen3", "q4")).functions:
        produced = [name for node in function.node for name in node.output]
        used = {name for node in function.node for name in node.input} | set(function.output)
        assert len(produced) == len(set(produced))
        assert set(function.input) <= used
        unused = [node.op_type for node in function.node if not set(node.output) & used]
        assert unused == []


def test_all_data_is_external_and_aligned(tiny_export: TinyExport) -> None:
    directory: Path = tiny_export("qwen3", "q4")
    size = (directory / "model.onnx.data").stat().st_size
    ends = []
    for tensor in read_graph(directory).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert tensor.data_location == onnx.TensorProto.EXTERNAL
        assert entries["location"] == "model.onnx.data"
        assert int(entries["offset"]) % 4096 == 0
        ends.append(int(entries["offset"]) + int(entries["length"]))
    assert max(ends) == size
    assert not np.any(np.diff(ends) <= 0), "tensors do not overlap"
    assert (directory / "model.onnx").stat().st_size < 64 * 1024
