"""Running a compiled graph from Python: the call struct of program.h with a team of one thread."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from forerun.compiler.graph_program import CompiledGraph

_BARRIER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)
_POINTERS_TO_ROWS = ("token_ids", "features", "positions", "hidden", "logits")


class Call(ctypes.Structure):
    """forerun_call; the members must be those of program.h, in its order (`test_call_struct`)."""

    _fields_ = [
        ("rows", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in _POINTERS_TO_ROWS),
        *((name, ctypes.c_void_p) for name in ("maxima", "items")),
        ("item_count", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("block_logits", "keys", "values")),
        ("capacity", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("sequences", "slots", "gather_start", "gather")),
        ("gather_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("weights", "arena", "scratch")),
        ("scratch_stride", ctypes.c_int64),
        ("buffers", ctypes.c_void_p),
        ("barrier", _BARRIER),
        ("team", ctypes.c_void_p),
        ("mark", ctypes.c_void_p),
        ("profile", ctypes.c_void_p),
    ]


class Graph(ctypes.Structure):
    """forerun_graph."""

    _fields_ = [
        ("abi", ctypes.c_uint32),
        ("weights_bytes", ctypes.c_uint64),
        ("arena_bytes", ctypes.c_uint64),
        ("scratch_bytes", ctypes.c_uint64),
        ("run", ctypes.CFUNCTYPE(None, ctypes.POINTER(Call), ctypes.c_int32)),
    ]


def run_graph(compiled: CompiledGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run a compiled graph once and return its outputs."""
    library = ctypes.CDLL(str(compiled.library))
    library.forerun_graph_main.restype = ctypes.POINTER(Graph)
    graph = library.forerun_graph_main().contents
    given = [np.ascontiguousarray(x, dtype) for x, (dtype, _) in zip(inputs, compiled.inputs, strict=True)]
    outputs = [np.zeros(shape, dtype) for dtype, shape in compiled.outputs]
    arrays = [*given, *outputs]
    buffers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    arena = np.zeros(graph.arena_bytes + 64, np.uint8)
    weights = np.frombuffer(compiled.weights or b"\0", np.uint8)
    barrier = _BARRIER(lambda team, tid: None)
    call = Call(rows=1, threads=1, barrier=barrier)
    call.arena = arena.ctypes.data + -arena.ctypes.data % 64
    call.weights = weights.ctypes.data
    call.buffers = ctypes.addressof(buffers)
    graph.run(ctypes.byref(call), 0)
    return outputs
