"""The call sequence of a component as a readable C file.

One function per distinct module calls its kernels in order with a barrier between; a table gives each layer's
weight offsets. Nothing here decides anything: the plans, the arena and the offsets come from the stages before.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.memory import Arena
from forerun.compiler.schedules import Choice
from forerun.compiler.schedules.plan import (
    ALONE_ROWS,
    Argument,
    Field,
    Input,
    Output,
    Packed,
    Plan,
    Private,
    SharedParts,
)
from forerun.compiler.schedules.tiling import FEW_ROWS, Tiling
from forerun.compiler.tir import Kernel, Parameter

C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "int64": "int64_t", "float32": "float"}
C_TYPES |= {
    "int16": "int16_t",
    "uint16": "uint16_t",
    "float16": "uint16_t",
    "bool": "uint8_t",
    "float64": "double",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
}


@dataclass(frozen=True)
class Module:
    """One distinct module, scheduled.

    Attributes:
        graph: its fused graph; `choices` has one entry per node.
        arena: where its values lie.
        roles: values that are not in the arena: value → C expression (`call->hidden`, …).
        offsets: for each layer that is this module, the byte offset of each of its packed weights in the file.
        layers: the layer numbers, in the order of `offsets` ([0] for embed and head).
        weight_bytes: the size of each of its packed weights, the same in every layer.
    """

    name: str
    graph: Graph
    choices: Sequence[Choice]
    arena: Arena
    roles: Mapping[Value, str]
    offsets: Sequence[Sequence[int]]
    layers: Sequence[int]
    weight_bytes: Sequence[int]


def c_type(parameter: Parameter) -> str:
    """Return the C type of a kernel's parameter, a space at its end unless it is a pointer."""
    if not parameter.pointer:
        return f"{C_TYPES[parameter.dtype]} "
    return f"{'' if parameter.written else 'const '}{C_TYPES[parameter.dtype]} *"


def wrapped(line: str, indent: str = "") -> list[str]:
    """Break a long C line after commas, a comment at any space; what follows is indented by four more."""
    comment = line.startswith("/*")
    kept = line if comment else re.sub("(?<!,) ", "\0", line)
    wrapper = textwrap.TextWrapper(110, initial_indent=indent, subsequent_indent=indent + "    ")
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return [piece.replace("\0", " ") for piece in wrapper.wrap(kept)]


def _parameters(kernel: Kernel) -> str:
    types = [f"{c_type(parameter)}{parameter.name}" for parameter in kernel.parameters]
    return ", ".join([*types, "int32_t rows", "int32_t tid", "int32_t nthreads"])


def kernel_declaration(kernel: Kernel) -> str:
    """Return the C prototype of a kernel."""
    return "\n".join(wrapped(f"extern void {kernel.name}({_parameters(kernel)});"))


def kernel_table(name: str, kernels: Mapping[int, Kernel]) -> str:
    """Return the prototypes of a matmul's kernels, which share one type, and their array, indexed by tile rows."""
    names = [kernels[tile].name for tile in sorted(kernels)]
    entries = [f"[{tile}] = {kernels[tile].name}" for tile in sorted(kernels)]
    lines = wrapped(f"typedef void {name}_kernel({_parameters(next(iter(kernels.values())))});")
    lines += wrapped(f"extern {name}_kernel {', '.join(names)};")
    lines += wrapped(f"static {name}_kernel *const {name}[] = {{{', '.join(entries)}}};")
    return "\n".join(lines) + "\n"


def table_name(kernels: Mapping[int, Kernel]) -> str:
    """Return the name of a matmul's kernel table: the kernels' common name."""
    return next(iter(kernels.values())).name.rsplit("_rows", 1)[0]


def kernel_name(plan: Plan) -> str:
    """Return the name by which a program runs a plan's kernels."""
    if not plan.kernels:
        return " + ".join(kernel.name for kernel in plan.stages)
    return plan.kernels[0].name if 0 in plan.kernels else table_name(plan.kernels)


def module_function(module: Module, first_kernel: int) -> str:
    """Return the weight table and the C function of one module; its kernels count from `first_kernel`."""
    name = module.name
    lines = wrapped(
        f"/* Byte offsets of each layer's packed weights in weights.bin: {_weight_names(module)}. */"
    )
    width = max(1, len(module.offsets[0]))
    lines.append(f"static const uint64_t {name}_weights[{len(module.offsets)}][{width}] = {{")
    lines += [f"  {{{', '.join(map(str, row)) or '0'}}}," for row in module.offsets]
    lines += ["};", ""]
    lines.append(
        f"static void {name}(const forerun_call *call, int32_t index, int32_t layer, int32_t tid) {{"
    )
    for line in _body(module, first_kernel):
        lines += wrapped(line, "  ")
    lines += ["}", ""]
    return "\n".join(lines)


def _weight_names(module: Module) -> str:
    names = []
    for choice in module.choices:
        for packing in choice.plan.weights:
            parts = "+".join(part or "zeros" for part in packing.parts)
            names.append(f"{parts} ({packing.layout})")
    return ", ".join(names) or "none"


def _body(module: Module, first_kernel: int) -> list[str]:
    lines = [
        f"const uint64_t *const weight = {module.name}_weights[index];",
        "const int32_t rows = call->rows, threads = call->threads;",
        f"const int alone = rows <= {ALONE_ROWS};",
        "uint8_t *const arena = call->arena;",
        "uint8_t *const own = call->scratch + tid * call->scratch_stride;",
        "(void)weight, (void)layer, (void)alone, (void)arena, (void)own;",
    ]
    lines += _pointers(module)
    first_weight = 0
    for i, (node, choice) in enumerate(zip(module.graph.nodes, module.choices, strict=True)):
        lines += _call(module, node, choice, first_weight, first_kernel + i)
        first_weight += len(choice.plan.weights)
        following = module.graph.nodes[i + 1] if i + 1 < len(module.graph.nodes) else None
        meet = "!alone" if _alone(module, node, choice) else "1"
        if following is not None and following.inputs == node.inputs and following.outputs == node.outputs:
            meet = "0"  # side by side: same rows read, other columns written
        lines.append(f"finish(call, layer, {first_kernel + i}, tid, {meet});")
    return lines


def _alone(module: Module, node: Node, choice: Choice) -> bool:
    """Whether a node's result may be private to each thread: row-wise, and read within this function only."""
    own = choice.plan.by_row or choice.plan.few is not None
    return own and node.output in module.arena.buffers


def _pointers(module: Module) -> list[str]:
    lines = []
    alone = {
        node.output
        for node, choice in zip(module.graph.nodes, module.choices, strict=True)
        if _alone(module, node, choice)
    }
    for value, parts in module.arena.buffers.items():
        base = "(alone ? own : arena)" if value in alone else "arena"
        for part, buffer in parts.items():
            pointer = f"{buffer.ctype} *const {_variable(value, part)}"
            lines.append(f"{pointer} = ({buffer.ctype} *)({base} + {buffer.offset});")
    return lines


def _variable(value: Value, part: str) -> str:
    return value.name if part == "values" else f"{value.name}_{part}"


def _call(module: Module, node: Node, choice: Choice, first_weight: int, number: int) -> list[str]:
    kernels = choice.plan.kernels
    kernel = next(iter(kernels.values()))

    def call(name: str, called: Kernel, given: Sequence[Argument], threads: str) -> str:
        arguments = [
            _argument(module, node, choice, argument, first_weight, C_TYPES[p.dtype])
            for argument, p in zip(given, called.parameters, strict=True)
        ]
        return f"{name}({', '.join([*arguments, 'rows', threads])});"

    tiling = choice.plan.tiling
    name = kernel_name(choice.plan) + ("" if 0 in kernels or tiling is None else f"[{_tile(tiling)}]")
    if choice.plan.few is not None:
        shared, own = choice.plan.few
        return [
            "if (alone) {",
            "  " + call(shared.kernel.name, shared.kernel, shared.arguments, "tid, threads"),
            f"  finish(call, layer, {number}, tid, 1);",
            "  " + call(own.kernel.name, own.kernel, own.arguments, "0, 1"),
            "} else {",
            "  " + call(name, kernel, choice.plan.arguments, "tid, threads"),
            "}",
        ]
    threads = "alone ? 0 : tid, alone ? 1 : threads" if _alone(module, node, choice) else "tid, threads"
    return [call(name, kernel, choice.plan.arguments, threads)]


def _tile(tiling: Tiling) -> str:
    """Return the C expression of `Tiling.tile_for`."""
    few = f"tile_rows(rows, {tiling.tile_rows})"
    return f"rows > {FEW_ROWS} ? {tiling.matrix_rows} : {few}" if tiling.matrix_rows else few


def _argument(
    module: Module, node: Node, choice: Choice, argument: Argument, first_weight: int, ctype: str
) -> str:
    if isinstance(argument, Input | Output):
        value = node.inputs[argument.index] if isinstance(argument, Input) else node.output
        if value in module.roles:
            return module.roles[value]
        return _variable(value, argument.part)
    if isinstance(argument, Packed):
        element = choice.plan.weights[argument.index].ctype
        return f"(const {element} *)(call->weights + weight[{first_weight + argument.index}])"
    if isinstance(argument, Private):
        return f"({ctype} *)(own + {argument.region.upper()}_OFFSET)"
    if isinstance(argument, SharedParts):
        return f"({ctype} *)(arena + SHARED_PARTS_OFFSET)"
    assert isinstance(argument, Field)
    if argument.name in ("keys", "values"):
        return f"({ctype} *)call->{argument.name}[layer]"
    return f"call->{argument.name}"
