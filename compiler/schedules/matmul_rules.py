"""The rules for `linear` and `linear_swiglu`: which kernels, which weight layout, which arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from forerun.compiler.operations import Linear, LinearSwiGlu, Operation, WeightRows
from forerun.compiler.pack import Packing
from forerun.compiler.schedules.dots import Dot, MaddDot, NarrowVnniDot, VnniDot, WideningDot
from forerun.compiler.schedules.epilogues import Epilogue, StoreColumns, SwiGlu
from forerun.compiler.schedules.head import SCREEN, BlockBounds, ListedBlocks, ScreenBounds
from forerun.compiler.schedules.layouts import BlockLayout, table_layout
from forerun.compiler.schedules.matmul import (
    MatmulShape,
    Weights,
    activation_parts,
    float_matmul,
    quantized_matmul,
    scalars_of,
)
from forerun.compiler.schedules.plan import (
    QUANTIZED_PARTS,
    Argument,
    Decline,
    Field,
    Input,
    Output,
    Packed,
    Plan,
    Private,
    Settings,
)
from forerun.compiler.tir import Kernel
from forerun.compiler.vector_math import GROUP


class _GroupedRule:
    """Quantized weights by one of the dots."""

    name: str
    dot: Dot
    feature: str | None = None

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline targets without the instruction, float weights and inputs that are no whole number of groups."""
        if self.feature is not None and self.feature not in settings.target.features:
            return Decline(f"the target has no {self.feature}")
        assert isinstance(operation, Linear | LinearSwiGlu)
        rows = stacked_rows(operation)
        scheme = rows[0].scheme
        if not scheme.quantized:
            return Decline("the weights are float32")
        if rows[0].inputs % GROUP:
            return Decline(f"{rows[0].inputs} inputs are no multiple of {GROUP}")
        weights = Weights(scheme, self._layout(operation, settings), self.dot)
        if isinstance(operation, Linear) and operation.head == "bounds" and weights.layout.name == "planes":
            # A bias would need a margin of its own.
            weights = weights if any(operation.biases) else replace(weights, scheme=SCREEN)
        activations: list[Argument] = [Input(0, part) for part in activation_parts(weights.scheme)]
        packings = _weight_packings(operation, weights)

        def build(name: str, shape: MatmulShape, epilogue: Epilogue) -> Kernel:
            return quantized_matmul(name, settings.target.fma, weights, shape, epilogue)

        return plan_tiles(operation, settings, activations, packings, build, weights.scheme.name)

    def _layout(self, operation: Linear | LinearSwiGlu, settings: Settings) -> BlockLayout:
        """Return the head's own layout for the head, where this dot can read it."""
        is_head = isinstance(operation, Linear) and operation.head is not None
        if is_head and self.dot.layout.name == settings.target.weight_layout:
            return table_layout(settings.target, stacked_rows(operation)[0].scheme)
        return self.dot.layout


class MatmulVnni(_GroupedRule):
    """vpdpbusd on 512-bit registers: 64 products an instruction."""

    name = "matmul_vnni"
    feature = "avx512_vnni"
    dot = VnniDot()


class MatmulAvxVnni(_GroupedRule):
    """vpdpbusd on 256-bit registers."""

    name = "matmul_avx_vnni"
    feature = "avx_vnni"
    dot = NarrowVnniDot()


class MatmulAvx2(_GroupedRule):
    """vpmaddubsw on 256-bit registers."""

    name = "matmul_avx2"
    feature = "avx2"
    dot = MaddDot()


class MatmulGrouped(_GroupedRule):
    """Widened integer products: runs on anything LLVM compiles for."""

    name = "matmul_grouped"
    dot = WideningDot()


class MatmulFloat:
    """float32 weights and activations."""

    name = "matmul_float"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline quantized weights."""
        assert isinstance(operation, Linear | LinearSwiGlu)
        rows = stacked_rows(operation)
        if rows[0].scheme.quantized:
            return Decline("the weights are quantized")
        packing = Packing("float_blocks", tuple(r.parts[0] for r in rows), **_stacking(operation))

        def build(name: str, shape: MatmulShape, epilogue: Epilogue) -> Kernel:
            return float_matmul(name, settings.target.fma, shape, epilogue)

        return plan_tiles(operation, settings, [Input(0)], [packing], build, "float32")


def stacked_rows(operation: Linear | LinearSwiGlu) -> tuple[WeightRows, ...]:
    """Return the matrices that the operation multiplies by, in stacking order."""
    if isinstance(operation, LinearSwiGlu):
        return (operation.gate, operation.up)
    return operation.weights


def _weight_packings(operation: Linear | LinearSwiGlu, weights: Weights) -> list[Packing]:
    """Return the arrays of weights, then their scales and minimums."""
    rows, stack = stacked_rows(operation), _stacking(operation)
    packings = [
        Packing(
            "blocks",
            tuple(r.parts[0] for r in rows),
            block_layout=weights.layout.name,
            array=array,
            scheme=rows[0].scheme,
            **stack,
        )
        for array in range(len(weights.layout.arrays(weights.scheme.bits)))
    ]
    return packings + [
        Packing("halves", tuple(r.parts[i] for r in rows), **stack) for i in range(1, len(rows[0].parts))
    ]


def _stacking(operation: Linear | LinearSwiGlu) -> dict:
    rows = stacked_rows(operation)
    return {"columns": tuple(r.columns for r in rows), "interleave": isinstance(operation, LinearSwiGlu)}


def plan_tiles(
    operation: Linear | LinearSwiGlu,
    settings: Settings,
    activations: list[Argument],
    packings: list[Packing],
    build: Callable[[str, MatmulShape, Epilogue], Kernel],
    scheme: str,
) -> Plan:
    """Build one kernel a tile size and list the arguments: activations, weights, then the epilogue's."""
    rows = stacked_rows(operation)
    columns, inputs = sum(r.columns for r in rows), rows[0].inputs
    epilogue, suffix = _epilogue(operation, columns, scheme)
    arguments: list[Argument] = [*activations, *(Packed(i) for i in range(len(packings)))]
    if epilogue.listed is not None:
        arguments.append(Field(epilogue.listed))
    if isinstance(epilogue, ScreenBounds):
        norms = [Packing(layout, rows[0].parts, (columns,)) for layout in ("residual_norms", "norms")]
        packings = [*packings, *norms]
        arguments += [Input(0, "low"), Packed(len(packings) - 2), Packed(len(packings) - 1), Private("tail")]
    if isinstance(operation, Linear) and any(name is not None for name in operation.biases):
        packings = [*packings, Packing("vector", operation.biases, tuple(r.columns for r in rows))]
        arguments.append(Packed(len(packings) - 1))
    quantized = isinstance(epilogue, SwiGlu) and epilogue.quantized
    arguments += [Output(part) for part in QUANTIZED_PARTS] if quantized else [Output()]
    arguments += [Field(name) for name in scalars_of(epilogue)]
    name = f"linear_{scheme}_{columns}x{inputs}{suffix}"
    ahead = settings.target.prefetch_bytes
    if epilogue.listed is not None:  # one row by definition
        return Plan(
            {0: build(name, MatmulShape(columns, inputs, 1, ahead), epilogue)},
            tuple(packings),
            tuple(arguments),
        )
    tiles = range(1, settings.target.tile_rows + 1)
    kernels = {
        tile: build(f"{name}_rows{tile}", MatmulShape(columns, inputs, tile, ahead), epilogue)
        for tile in tiles
    }
    return Plan(kernels, tuple(packings), tuple(arguments))


def _epilogue(operation: Linear | LinearSwiGlu, columns: int, scheme: str) -> tuple[Epilogue, str]:
    if isinstance(operation, LinearSwiGlu):
        form = "quantized" if operation.quantized else "float"
        return SwiGlu(operation.gate.columns, operation.quantized), f"_swiglu_{form}"
    bias = any(name is not None for name in operation.biases)
    suffix = ("_bias" if bias else "") + ("_add" if operation.add else "")
    if operation.head == "bounds" and scheme == SCREEN.name:
        return ScreenBounds(columns), "_bounds"
    if operation.head == "bounds":
        return BlockBounds(columns, bias), f"{suffix}_bounds"
    if operation.head == "blocks":
        return ListedBlocks(bias), f"{suffix}_blocks"
    epilogue = StoreColumns(columns, operation.stride, operation.first_column, bias, operation.add)
    if operation.stride != columns:
        suffix += f"_at{operation.first_column}of{operation.stride}"
    return epilogue, suffix
