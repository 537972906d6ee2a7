"""Modules to ONNX functions: traced once by torch, cleaned, then given quantized weights as inputs."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from forerun.errors import ExportError
from forerun.export.schemes import SCHEMES
from forerun.export.signature import (
    DOMAIN,
    FEED_FORWARD,
    HEAD,
    OPSET,
    Form,
    Sublayer,
    opset_imports,
    order_weights,
)

# Rows and past rows of the example that is traced; any two different numbers above one do.
_ROWS, _PAST = 3, 5
_WIDER = {TensorProto.INT4: TensorProto.INT8, TensorProto.UINT4: TensorProto.UINT8}


class _WeightsAsInputs(nn.Module):
    """A module called with its weights as further positional arguments, so that a trace has them as
    inputs.
    """

    def __init__(self, module: nn.Module, activations: int, weights: Sequence[str]) -> None:
        super().__init__()
        # Kept out of torch's bookkeeping: registered parameters would become initializers of the trace.
        self.__dict__["module"] = module
        self.activations, self.weights = activations, weights

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Activations first, then weights in the order of the signature."""
        weights = dict(zip(self.weights, inputs[self.activations :], strict=True))
        return torch.func.functional_call(self.module, weights, inputs[: self.activations])


def trace_functions(form: Form, network: Any) -> dict[str, FunctionProto]:
    """One function per kind of module, with float weights as inputs.

    `network` has the modules `embed`, `layers` and `head` of a `Decoder`, those that `form` says it has, with any
    weights. Raises `ExportError` if torch cannot export a module.
    """
    modules: dict[Sublayer, nn.Module] = {HEAD: network.head}
    if form.embed is not None:
        modules[form.embed] = network.embed
    for index, layer in enumerate(network.layers):
        for sublayer in form.sublayers(index):
            modules.setdefault(sublayer, layer.feed_forward if sublayer is FEED_FORWARD else layer.attention)
    return {kind.function: _trace(kind, module, form) for kind, module in modules.items()}


def _examples(form: Form) -> dict[str, tuple[torch.Tensor, dict[int, Any]]]:
    """For each activation of the signature a tensor to trace with, and which of its dimensions vary."""
    auto, config = torch.export.Dim.AUTO, form.config
    # New tensors each: torch.export takes one object given twice for one input.
    return {
        "hidden": (torch.zeros(_ROWS, config.hidden_size), {0: auto}),
        "token_ids": (torch.zeros(_ROWS, dtype=torch.int64), {0: auto}),
        "features": (torch.zeros(_ROWS, form.feature_size), {0: auto}),
        "positions": (torch.zeros(_ROWS, dtype=torch.int64), {0: auto}),
        "tree_mask": (torch.ones(_ROWS, _PAST + _ROWS, dtype=torch.bool), {0: auto, 1: auto}),
        "window_mask": (torch.ones(_ROWS, _PAST + _ROWS, dtype=torch.bool), {0: auto, 1: auto}),
        "past_key": (torch.zeros(config.kv_heads, _PAST, config.head_dim), {1: auto}),
        "past_value": (torch.zeros(config.kv_heads, _PAST, config.head_dim), {1: auto}),
    }


def quantize_function(function: FunctionProto, name: str, schemes: Mapping[str, str]) -> FunctionProto:
    """The function with each quantized weight W replaced by inputs W.q, W.scale, … and dequantized in its
    body.

    `schemes` gives the scheme of each weight by name. A weight that is only gathered from has rows of its
    parts gathered before they are dequantized.
    """
    quantized = {
        weight: SCHEMES[schemes[weight]]() for weight in schemes if SCHEMES[schemes[weight]].function_name
    }
    inputs: list[str] = []
    for weight in function.input:
        parts = quantized[weight].parts if weight in quantized else ()
        inputs.extend([f"{weight}.{part.suffix}" for part in parts] or [weight])
    nodes: list[NodeProto] = []
    for node in function.node:
        if node.op_type == "Gather" and node.input[0] in quantized:
            nodes.extend(_gather_parts(node, quantized[node.input[0]]))
            continue
        for weight in node.input:
            nodes.extend(_dequantize(weight, quantized[weight]) if weight in quantized else ())
        nodes.append(node)
    return helper.make_function(DOMAIN, name, inputs, list(function.output), nodes, opset_imports())


def _dequantize(weight: str, scheme: Any) -> list[NodeProto]:
    """The call that dequantizes a whole weight.

    ONNX Runtime learns which types a function's input may have from the standard operators that take it; an
    input that only goes on to another function may not be 4-bit. Hence one Identity in front of 4-bit parts.
    """
    nodes, arguments = [], []
    for part in scheme.parts:
        arguments.append(f"{weight}.{part.suffix}")
        if part.data_type in _WIDER:
            nodes.append(helper.make_node("Identity", [arguments[-1]], [f"{arguments[-1]}.typed"]))
            arguments[-1] = f"{arguments[-1]}.typed"
    return [*nodes, helper.make_node(scheme.function_name, arguments, [weight], domain=DOMAIN)]


def _gather_parts(gather: NodeProto, scheme: Any) -> list[NodeProto]:
    """Gather rows of every part; Gather takes no 4-bit tensors, so those are widened first."""
    weight, rows = gather.input
    nodes, gathered = [], []
    for part in scheme.parts:
        source = f"{weight}.{part.suffix}"
        if part.data_type in _WIDER:
            wider = _WIDER[part.data_type]
            nodes.append(helper.make_node("Cast", [source], [f"{source}.wide"], to=wider))
            source = f"{source}.wide"
        gathered.append(f"rows.{part.suffix}")
        nodes.append(helper.make_node("Gather", [source, rows], [gathered[-1]], axis=0))
    return [*nodes, helper.make_node(scheme.function_name, gathered, list(gather.output), domain=DOMAIN)]


def _trace(sublayer: Sublayer, module: nn.Module, form: Form) -> FunctionProto:
    """Export one module and turn the graph into a function with the signature's names."""
    known = _examples(form)
    examples, dynamic = zip(*(known[name] for name in sublayer.activations), strict=True)
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    weights = order_weights(set(state))
    wrapped = _WeightsAsInputs(module, len(examples), weights).eval()
    arguments = (*examples, *(state[name].detach() for name in weights))
    try:
        with torch.no_grad(), _quiet_exporter():
            program = torch.onnx.export(
                wrapped,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=((*dynamic, *(None for _ in weights)),),
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(f"torch could not export {sublayer.function}: {error}") from error
    assert program is not None
    return _as_function(program.model_proto.graph, sublayer, (*sublayer.activations, *weights))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what no user of ours can act on.

    The exporter logs once per call that torchvision is absent, and warns of torch's own deprecations.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _as_function(graph: onnx.GraphProto, sublayer: Sublayer, inputs: tuple[str, ...]) -> FunctionProto:
    """Give inputs and outputs their names, fold equal constants into one node each, drop what tracing
    left.
    """
    names = {value.name: name for value, name in zip(graph.input, inputs, strict=True)}
    names |= {value.name: name for value, name in zip(graph.output, sublayer.outputs, strict=True)}
    constants: dict[str, NodeProto] = {}
    for initializer in graph.initializer:
        array = numpy_helper.to_array(initializer)
        if array.dtype == np.float32 and array.ndim == 0:
            name = f"float_{array.tobytes().hex()}"
            constant = helper.make_node("Constant", [], [name], value_float=float(array))
        else:
            assert array.dtype.kind == "i" and array.ndim == 1, (
                f"unexpected constant {initializer.name} in a trace"
            )
            name = "ints_" + "_".join(str(number).replace("-", "minus") for number in array)
            constant = helper.make_node("Constant", [], [name], value_ints=array.tolist())
        names[initializer.name] = name
        constants[name] = constant
    nodes = [_clean(node, names) for node in graph.node]
    outputs = list(sublayer.outputs)
    return helper.make_function(
        DOMAIN, sublayer.function, list(inputs), outputs, [*constants.values(), *nodes], opset_imports()
    )


def _clean(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """The node under our names, without metadata (which holds stack traces) and without default
    attributes.
    """
    dropped = {"allowzero", "stash_type"}
    clean = helper.make_node(
        node.op_type,
        [names.get(name, name) for name in node.input],
        [names.get(name, name) for name in node.output],
        domain=node.domain,
    )
    clean.attribute.extend(attribute for attribute in node.attribute if attribute.name not in dropped)
    return clean
