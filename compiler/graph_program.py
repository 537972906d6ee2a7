"""Any ONNX graph with static shapes as a native library: what the importer's tests run.

The same stages as a decoder's, import, lower, plan memory, emit, link, with the last rule of every list for each
node: kernels run on the team's first thread, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import onnx

from forerun.compiler.build import write_header
from forerun.compiler.emit import c_type, kernel_declaration
from forerun.compiler.from_onnx import import_module
from forerun.compiler.graph import Graph, Value
from forerun.compiler.legalized import LegalizedGraph, legalize
from forerun.compiler.link import link
from forerun.compiler.memory import aligned
from forerun.compiler.native import write_object
from forerun.targets import PLATFORMS, Target

_FILE = Template("""\
/* An ONNX graph compiled by forerun for $target. Generated: do not edit. */
#include <forerun/program.h>
#include <stdlib.h>
#include <string.h>

$declarations

/* Large temporaries inside a kernel are asked for by these names. */
void *TVMBackendAllocWorkspace(int device_type, int device, uint64_t size, int code, int bits);
int TVMBackendFreeWorkspace(int device_type, int device, void *pointer);
void *TVMBackendAllocWorkspace(int device_type, int device, uint64_t size, int code, int bits) {
  (void)device_type, (void)device, (void)code, (void)bits;
  return malloc(size);
}
int TVMBackendFreeWorkspace(int device_type, int device, void *pointer) {
  (void)device_type, (void)device;
  free(pointer);
  return 0;
}

static void run(const forerun_call *call, int32_t tid) {
  if (tid == 0) {
$calls
  }
  call->barrier(call->team, tid);
}

static const forerun_graph graph = {
    .abi = FORERUN_PROGRAM_ABI,
    .weights_bytes = $weights_bytes,
    .arena_bytes = $arena_bytes,
    .scratch_bytes = 0,
    .run = run,
};

const forerun_graph *forerun_graph_main(void);
const forerun_graph *forerun_graph_main(void) { return &graph; }
""")


@dataclass(frozen=True)
class CompiledGraph:
    """Where the library is, the constants it reads at `call->weights`, and what goes into `call->buffers`.

    `inputs` and `outputs` are (dtype, shape) in the order of the graph; inputs come first in `buffers`.
    """

    library: Path
    weights: bytes
    arena_bytes: int
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...]


def compile_graph(model: onnx.ModelProto, target: Target, folder: Path) -> CompiledGraph:
    """Compile a model's graph into `folder`/graph.so.

    Raises:
        CompileError: an operator or shape is not supported.
    """
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    lowered = legalize(model.graph.name, import_module(model.graph, opset))
    places, weights, arena_bytes = _place(lowered.graph)
    source = folder / "graph.c"
    write_header(folder)
    source.write_text(_source(lowered, places, len(weights), arena_bytes, target), encoding="utf-8")
    write_object(lowered.kernels.values(), target, folder / "kernels.o")
    link([source, folder / "kernels.o"], folder, folder / "graph.so", PLATFORMS[target.platform])
    return CompiledGraph(
        folder / "graph.so",
        weights,
        arena_bytes,
        tuple(_described(lowered.graph.inputs)),
        tuple(_described(lowered.graph.outputs)),
    )


def _described(values: Sequence[Value]) -> list[tuple[str, tuple[int, ...]]]:
    return [(value.dtype, tuple(int(d) for d in value.shape)) for value in values]


def _bytes(value: Value) -> int:
    return int(np.prod([int(d) for d in value.shape], dtype=np.int64)) * np.dtype(value.dtype).itemsize


def _place(graph: Graph) -> tuple[dict[Value, str], bytes, int]:
    """Return a C expression for every value's address, the constants' bytes and the arena's size.

    Outputs are written in place; each intermediate has a place of its own.
    """
    places = {value: f"call->buffers[{i}]" for i, value in enumerate(graph.inputs)}
    weights, arena = bytearray(), 0
    for i, value in enumerate(graph.outputs):
        if graph.producer(value) is not None:
            places.setdefault(value, f"call->buffers[{len(graph.inputs) + i}]")
    for value in [v for node in graph.nodes for v in (*node.inputs, *node.outputs)] + graph.outputs:
        if value in places:
            continue
        if value.constant is not None:
            places[value] = f"call->weights + {len(weights)}"
            data = np.ascontiguousarray(value.constant).tobytes()
            weights += data + b"\0" * (aligned(len(data)) - len(data))
        else:
            places[value] = f"call->arena + {arena}"
            arena += aligned(_bytes(value))
    return places, bytes(weights), max(arena, 64)


def _source(
    lowered: LegalizedGraph, places: dict[Value, str], weights_bytes: int, arena_bytes: int, target: Target
) -> str:
    calls = []
    for node in lowered.graph.nodes:
        kernel = lowered.kernels[node.detail]
        values = [*node.inputs, *node.outputs]
        arguments = [
            f"({c_type(p)})({places[value]})" for p, value in zip(kernel.parameters, values, strict=True)
        ]
        calls.append(f"    {kernel.name}({', '.join([*arguments, 'call->rows', '0', '1'])});")
    first_output = len(lowered.graph.inputs)
    for i, value in enumerate(lowered.graph.outputs):
        own = f"call->buffers[{first_output + i}]"
        if places[value] != own:  # an output that is an input, a constant or another output
            calls.append(f"    memcpy({own}, {places[value]}, {_bytes(value)});")
    return _FILE.substitute(
        target=target.name,
        declarations="\n".join(kernel_declaration(kernel) for kernel in lowered.kernels.values()),
        calls="\n".join(calls),
        weights_bytes=weights_bytes,
        arena_bytes=arena_bytes,
    )
