"""A whole network run kernel by kernel on a device: every fused operation by its rule's plan, in the order of calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from device_runner import DeviceKernels
from test_gpu_rows import WordCache, row_table

from forerun.compiler.export_reader import ModuleCall, open_export
from forerun.compiler.gpu.attention import part_floats
from forerun.compiler.gpu.words import QuantizedWords
from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.operations import CachedAttention, RopeStore
from forerun.compiler.pipeline import fused_modules
from forerun.compiler.schedules import schedule
from forerun.compiler.schedules.plan import (
    Argument,
    Field,
    Input,
    Output,
    Packed,
    Plan,
    Settings,
    SharedParts,
    Stage,
)
from forerun.compiler.schedules.rope import BLOCK, AttentionShape, ring_positions
from forerun.targets.gpu import GpuTarget

CAPACITY, MAX_GATHER = 256, 64


class DeviceNetwork:
    """The network of an export with one sequence; weights are packed and kernels built when first used."""

    def __init__(self, target: GpuTarget, export: Path, kv_dtype: str) -> None:
        self.export, self.target = open_export(export), target
        self.settings = Settings(target, kv_dtype, MAX_GATHER)
        self.config = self.export.settings["config"]
        self.graphs = fused_modules(self.export)
        self.plans = {
            name: [schedule(name, node, self.settings).plan for node in graph.nodes]
            for name, graph in self.graphs.items()
        }
        self._kernels: dict[str, DeviceKernels] = {}
        self._caches: dict[int, WordCache] = {}

    def forward(
        self, token_ids: np.ndarray, positions: np.ndarray, slots: np.ndarray, branches: list[list[int]]
    ) -> np.ndarray:
        """Return the logits [rows, V]; branches[i] are the slots of row i's last positions, its own last."""
        rows = len(token_ids)
        starts = [p + 1 - len(branch) for p, branch in zip(positions, branches, strict=True)]
        self.table = row_table(
            rows, token_ids=token_ids, positions=positions, sequences=0, slots=slots, gather_start=starts
        )
        self.gather = np.zeros((rows, MAX_GATHER), np.int32)
        for i, branch in enumerate(branches):
            self.gather[i, : len(branch)] = branch
        self.blocks = int(max(positions)) // BLOCK + 1
        self.hidden = np.zeros((rows, self.config["hidden_size"]), np.float32)
        self.logits = np.zeros((rows, self.config["vocabulary_size"]), np.float32)
        for call in self.export.calls:
            self._run_module(call, rows)
        return self.logits

    def _run_module(self, call: ModuleCall, rows: int) -> None:
        graph = self.graphs[call.function]
        values = self._values(graph, call, rows)
        for node, plan in zip(graph.nodes, self.plans[call.function], strict=True):
            weights = [
                np.ascontiguousarray(p.pack(lambda name: self.export.load(call.inputs[name])))
                for p in plan.weights
            ]
            parts = self._parts(node, rows)
            for stage in self._stages(plan, rows):
                given = [
                    self._argument(node, argument, call.layer, values, weights, parts)
                    for argument in stage.arguments
                ]
                self._kernel(stage).call(stage.kernel.name, *given, rows=rows)

    def _values(self, graph: Graph, call: ModuleCall, rows: int) -> dict[Value, np.ndarray]:
        """Return room for every value of a module; its result is the hidden state or the logits."""
        values: dict[Value, np.ndarray] = {}
        for node in graph.nodes:
            quantized = bool(getattr(node.detail, "quantized", False))
            columns = int(node.output.shape[-1])
            size, dtype = (
                (QuantizedWords(columns).row_words, np.uint32) if quantized else (columns, np.float32)
            )
            values.setdefault(node.output, np.zeros((rows, size), dtype))
        values[graph.outputs[0]] = self.logits if call.function == "Head" else self.hidden
        if (hidden := graph.input("hidden")) is not None:
            values[hidden] = self.hidden
        return values

    def _stages(self, plan: Plan, rows: int) -> tuple[Stage, ...]:
        if plan.few is not None:
            return plan.few
        few = 0 if 0 in plan.kernels or plan.tiling is None else plan.tiling.tile_for(rows)
        tile = min(size for size in plan.kernels if size >= few)
        return (Stage(plan.kernels[tile], plan.arguments),)

    def _parts(self, node: Node, rows: int) -> np.ndarray | None:
        if not isinstance(node.detail, CachedAttention):
            return None
        shape = AttentionShape(node.detail.heads, node.detail.kv_heads, node.detail.head_dim, 1.0, "float32")
        return np.full((self.blocks, rows, shape.heads, part_floats(shape)), np.nan, np.float32)

    def _kernel(self, stage: Stage) -> DeviceKernels:
        name = stage.kernel.name
        if name not in self._kernels:
            self._kernels[name] = DeviceKernels(self.target, [stage.kernel])
        return self._kernels[name]

    def _argument(
        self,
        node: Node,
        argument: Argument,
        layer: int,
        values: dict[Value, np.ndarray],
        weights: list[np.ndarray],
        parts: np.ndarray | None,
    ) -> np.ndarray | int:
        if isinstance(argument, Input):
            return values[node.inputs[argument.index]]
        if isinstance(argument, Output):
            return values[node.output]
        if isinstance(argument, Packed):
            return weights[argument.index]
        if isinstance(argument, SharedParts):
            assert parts is not None
            return parts
        assert isinstance(argument, Field)
        scalars = {
            "capacity": CAPACITY,
            "gather_stride": MAX_GATHER,
            "block_count": self.blocks,
            "first_row": 0,
        }
        if argument.name in scalars:
            return scalars[argument.name]
        if argument.name in ("keys", "values"):
            return getattr(self._cache(node, layer), argument.name)
        return {"row_table": self.table, "gather": self.gather}[argument.name]

    def _cache(self, node: Node, layer: int) -> WordCache:
        if layer not in self._caches:
            o = node.detail
            assert isinstance(o, RopeStore)
            ring = ring_positions(o.window, MAX_GATHER)
            shape = AttentionShape(
                o.heads, o.kv_heads, o.head_dim, 1.0, self.settings.kv_dtype, None, o.window, ring
            )
            self._caches[layer] = WordCache(shape, 1, min(CAPACITY, ring or CAPACITY))
        return self._caches[layer]
