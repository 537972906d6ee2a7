"""The model's graph: one call per sublayer, one function per distinct module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper

from forerun.export.functions import quantize_function
from forerun.export.schemes import SCHEMES
from forerun.export.signature import (
    DOMAIN,
    HEAD,
    IR_VERSION,
    Form,
    Sublayer,
    graph_inputs,
    graph_outputs,
    layer_prefix,
    opset_imports,
    past_names,
    present_names,
    tap_name,
)


@dataclass
class GraphBuilder:
    """Collects calls and the functions they need.

    `traced` holds a float function per kind of module, `schemes` the scheme of each initializer by weight
    name.
    """

    form: Form
    traced: Mapping[str, FunctionProto]
    schemes: Mapping[str, str]
    nodes: list[NodeProto] = field(default_factory=list)
    functions: dict[tuple[str, tuple[str, ...]], FunctionProto] = field(default_factory=dict)

    def call(self, sublayer: Sublayer, prefix: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Add one call; a new combination of schemes brings a new function."""
        traced = self.traced[sublayer.function]
        local = traced.input[len(sublayer.activations) :]
        weights = [self._shared_name(self.form.initializer_name(sublayer, prefix, name)) for name in local]
        schemes = tuple(self.schemes[weight] for weight in weights)
        key = (sublayer.function, schemes)
        if key not in self.functions:
            same_kind = sum(kind == sublayer.function for kind, _ in self.functions)
            name = f"{sublayer.function}_{same_kind}" if same_kind else sublayer.function
            self.functions[key] = quantize_function(traced, name, dict(zip(local, schemes, strict=True)))
        arguments = [name for weight in weights for name in self._parts(weight)]
        self.nodes.append(
            helper.make_node(
                self.functions[key].name, [*inputs, *arguments], list(outputs), prefix, domain=DOMAIN
            )
        )

    def _shared_name(self, weight: str) -> str:
        # A head that has no matrix of its own is tied.
        return "embed.weight" if weight == "head.weight" and weight not in self.schemes else weight

    def _parts(self, weight: str) -> list[str]:
        scheme = SCHEMES[self.schemes[weight]]
        return [part_name(weight, part.suffix) for part in scheme.parts]


def part_name(weight: str, suffix: str) -> str:
    """The initializer that holds one part of a weight."""
    return f"{weight}.{suffix}" if suffix else weight


def build_model(
    form: Form,
    name: str,
    traced: Mapping[str, FunctionProto],
    schemes: Mapping[str, str],
    initializers: Sequence[TensorProto],
) -> ModelProto:
    """The whole network around its initializers."""
    builder = GraphBuilder(form, traced, schemes)
    if form.embed is not None:
        builder.call(form.embed, "embed", form.row_inputs, ["hidden"])
    hidden = "hidden"
    for layer in range(form.config.layers):
        sublayers = form.sublayers(layer)
        for sublayer in sublayers:
            last = sublayer is sublayers[-1]
            output = tap_name(layer) if last else f"hidden.{layer}"
            inputs, outputs = [hidden], [output]
            if sublayer.mask is not None:
                inputs += ["positions", sublayer.mask, *past_names(layer)]
                outputs += present_names(layer)
            builder.call(sublayer, layer_prefix(layer, sublayer), inputs, outputs)
            hidden = output
    builder.call(HEAD, "head", [hidden], ["logits"])
    graph = helper.make_graph(
        builder.nodes, name, graph_inputs(form), graph_outputs(form), list(initializers)
    )
    used = sorted({scheme for scheme in schemes.values() if SCHEMES[scheme].function_name})
    dequantizers = {function.name: function for scheme in used if (function := SCHEMES[scheme]().function())}
    return helper.make_model(
        graph,
        functions=[*dequantizers.values(), *builder.functions.values()],
        opset_imports=opset_imports(),
        ir_version=IR_VERSION,
        producer_name="forerun",
    )
