"""The rules for `linear` and `linear_swiglu`: which kernels, which weight layout, which arguments."""

from __future__ import annotations

from collections.abc import Callable

from forerun.compiler.operations import Linear, LinearSwiGlu, Operation, WeightRows
from forerun.compiler.pack import Packing
from forerun.compiler.schedules.dots import Dot, MaddDot, NarrowVnniDot, VnniDot, WideningDot
from forerun.compiler.schedules.epilogues import BlockMaxima, Epilogue, ListedBlocks, StoreColumns, SwiGlu
from forerun.compiler.schedules.matmul import (
    MatmulShape,
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
        activations: list[Argument] = [Input(0, part) for part in activation_parts(scheme)]
        stack = _stacking(operation)
        packings = [
            Packing(
                "blocks",
                tuple(r.parts[0] for r in rows),
                block_layout=self.dot.layout.name,
                scheme=scheme,
                **stack,
            )
        ]
        packings += [
            Packing("halves", tuple(r.parts[i] for r in rows), **stack) for i in range(1, len(rows[0].parts))
        ]

        def build(name: str, shape: MatmulShape, epilogue: Epilogue) -> Kernel:
            return quantized_matmul(name, settings.target.fma, self.dot, scheme, shape, epilogue)

        return plan_tiles(operation, settings, activations, packings, build, scheme.name)


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
    epilogue, suffix = _epilogue(operation, columns)
    arguments: list[Argument] = [*activations, *(Packed(i) for i in range(len(packings)))]
    if epilogue.listed is not None:
        arguments.append(Field(epilogue.listed))
    if isinstance(operation, Linear) and any(name is not None for name in operation.biases):
        packings = [*packings, Packing("vector", operation.biases, tuple(r.columns for r in rows))]
        arguments.append(Packed(len(packings) - 1))
    quantized = isinstance(epilogue, SwiGlu) and epilogue.quantized
    arguments += [Output(part) for part in QUANTIZED_PARTS] if quantized else [Output()]
    arguments += [Field(name) for name in scalars_of(epilogue)]
    name = f"linear_{scheme}_{columns}x{inputs}{suffix}"
    tiling = settings.tiling(name)

    def kernel(own_name: str, tile: int) -> Kernel:
        shape = MatmulShape(columns, inputs, tile, tiling.prefetch_bytes, tile in tiling.whole_groups)
        return build(own_name, shape, epilogue)

    if epilogue.listed is not None:  # one row by definition
        return Plan({0: kernel(name, 1)}, tuple(packings), tuple(arguments), tiling=tiling)
    kernels = {tile: kernel(f"{name}_rows{tile}", tile) for tile in range(1, tiling.tile_rows + 1)}
    return Plan(kernels, tuple(packings), tuple(arguments), tiling=tiling)


def _epilogue(operation: Linear | LinearSwiGlu, columns: int) -> tuple[Epilogue, str]:
    if isinstance(operation, LinearSwiGlu):
        form = "quantized" if operation.quantized else "float"
        return SwiGlu(operation.gate.columns, operation.quantized), f"_swiglu_{form}"
    bias = any(name is not None for name in operation.biases)
    suffix = ("_bias" if bias else "") + ("_add" if operation.add else "")
    if operation.head == "maxima":
        return BlockMaxima(columns, bias), f"{suffix}_maxima"
    if operation.head == "blocks":
        return ListedBlocks(bias), f"{suffix}_blocks"
    epilogue = StoreColumns(columns, operation.stride, operation.first_column, bias, operation.add)
    if operation.stride != columns:
        suffix += f"_at{operation.first_column}of{operation.stride}"
    return epilogue, suffix
