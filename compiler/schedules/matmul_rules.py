"""The rules for `linear` and `linear_swiglu`: which kernels, which weight layout, which arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from forerun.compiler.operations import Linear, LinearSwiGlu, Operation, WeightRows
from forerun.compiler.pack import Packing
from forerun.compiler.schedules.amx import ROWS as AMX_ROWS
from forerun.compiler.schedules.amx import amx_matmul
from forerun.compiler.schedules.arm_dots import NeonDot, SdotDot, UsdotDot
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
from forerun.compiler.schedules.tiling import tile_sizes
from forerun.compiler.schemes import Scheme
from forerun.compiler.tir import Kernel
from forerun.compiler.vector_math import GATED_NAMES, GROUP
from forerun.targets import GpuTarget, Target


class GroupedRule:
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
                block_layout=self._layout(settings.target),
                scheme=scheme,
                **stack,
            )
        ]
        packings += [
            Packing("halves", tuple(r.parts[i] for r in rows), scheme=scheme, **stack)
            for i in range(1, len(rows[0].parts))
        ]

        build = partial(self._build, settings.target, scheme)
        return plan_tiles(operation, settings, activations, packings, build)

    def _layout(self, target: Target) -> str:
        return self.dot.layout.name

    def _build(
        self, target: Target, scheme: Scheme, name: str, shape: MatmulShape, epilogue: Epilogue
    ) -> Kernel:
        return quantized_matmul(name, target.arithmetic, self.dot, scheme, shape, epilogue)


class MatmulVnni(GroupedRule):
    """vpdpbusd on 512-bit registers: 64 products an instruction."""

    name = "matmul_vnni"
    feature = "avx512_vnni"
    dot = VnniDot()


class MatmulAmx(GroupedRule):
    """Tiles of 16 rows by the matrix unit in calls of many rows; in those of few rows, the 512-bit registers."""

    name = "matmul_amx"
    feature = "amx_int8"
    dot = VnniDot()

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline, beside what the vector kernels decline, matmuls whose numbers leave the matrix unit alone."""
        assert isinstance(operation, Linear | LinearSwiGlu)
        if not settings.tiling(kernels_name(operation)).matrix_rows:
            return Decline("the matrix unit is used only where forerun tune found it faster")
        return super().apply(operation, settings)

    def _build(
        self, target: Target, scheme: Scheme, name: str, shape: MatmulShape, epilogue: Epilogue
    ) -> Kernel:
        if shape.tile == AMX_ROWS:
            return amx_matmul(name, target.arithmetic, scheme, shape, epilogue)
        return super()._build(target, scheme, name, shape, epilogue)


class MatmulAvxVnni(GroupedRule):
    """vpdpbusd on 256-bit registers."""

    name = "matmul_avx_vnni"
    feature = "avx_vnni"
    dot = NarrowVnniDot()


class MatmulAvx2(GroupedRule):
    """vpmaddubsw on 256-bit registers."""

    name = "matmul_avx2"
    feature = "avx2"
    dot = MaddDot()


class MatmulI8mm(GroupedRule):
    """usdot on 128-bit registers: unsigned weights with signed activations, 16 products an instruction."""

    name = "matmul_i8mm"
    feature = "i8mm"
    dot = UsdotDot()


class MatmulDotprod(GroupedRule):
    """sdot on 128-bit registers: 16 products an instruction."""

    name = "matmul_dotprod"
    feature = "asimddp"
    dot = SdotDot()


class MatmulNeon(GroupedRule):
    """smull on 128-bit registers: 8 products an instruction, what every 64-bit Arm has."""

    name = "matmul_neon"
    feature = "asimd"
    dot = NeonDot()


class MatmulGrouped(GroupedRule):
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
        build = partial(self._build, settings.target)
        return plan_tiles(operation, settings, [Input(0)], [packing], build)

    def _build(self, target: Target, name: str, shape: MatmulShape, epilogue: Epilogue) -> Kernel:
        return float_matmul(name, target.arithmetic, shape, epilogue)


def stacked_rows(operation: Linear | LinearSwiGlu) -> tuple[WeightRows, ...]:
    """Return the matrices that the operation multiplies by, in stacking order."""
    if isinstance(operation, LinearSwiGlu):
        return (operation.gate, operation.up)
    return operation.weights


def _stacking(operation: Linear | LinearSwiGlu) -> dict:
    rows = stacked_rows(operation)
    return {"columns": tuple(r.columns for r in rows), "interleave": isinstance(operation, LinearSwiGlu)}


def kernels_name(operation: Linear | LinearSwiGlu) -> str:
    """Return the common name of a matmul's kernels."""
    rows = stacked_rows(operation)
    columns = sum(r.columns for r in rows)
    return f"linear_{rows[0].scheme.name}_{columns}x{rows[0].inputs}{_epilogue(operation, columns)[1]}"


def name_of_numbers(operation: Linear | LinearSwiGlu, target: Target) -> str:
    """Return the name that the numbers of a matmul's kernels are kept by: that of the kernels on the CPU.

    On a device they decide bits, so all forms of the head have those of its logits.
    """
    if isinstance(target, GpuTarget) and isinstance(operation, Linear):
        return kernels_name(replace(operation, head=None))
    return kernels_name(operation)


def plan_tiles(
    operation: Linear | LinearSwiGlu,
    settings: Settings,
    activations: list[Argument],
    packings: list[Packing],
    build: Callable[[str, MatmulShape, Epilogue], Kernel],
) -> Plan:
    """Build one kernel a tile size and list the arguments: activations, weights, then the epilogue's."""
    rows = stacked_rows(operation)
    columns, inputs = sum(r.columns for r in rows), rows[0].inputs
    epilogue, _ = _epilogue(operation, columns)
    arguments: list[Argument] = [*activations, *(Packed(i) for i in range(len(packings)))]
    if epilogue.listed is not None:
        arguments.append(Field(epilogue.listed))
    if isinstance(operation, Linear) and any(name is not None for name in operation.biases):
        packings = [*packings, Packing("vector", operation.biases, tuple(r.columns for r in rows))]
        arguments.append(Packed(len(packings) - 1))
    quantized = isinstance(epilogue, SwiGlu) and epilogue.quantized
    arguments += [Output(part) for part in QUANTIZED_PARTS] if quantized else [Output()]
    arguments += [Field(name) for name in scalars_of(epilogue)]
    name, numbers_name = kernels_name(operation), name_of_numbers(operation, settings.target)
    tiling = settings.tiling(numbers_name)

    def kernel(own_name: str, tile: int) -> Kernel:
        whole = tile in tiling.whole_groups
        numbers = (tile, tiling.prefetch_bytes, whole, tiling.blocks, tiling.threads)
        return build(own_name, MatmulShape(columns, inputs, *numbers), epilogue)

    if epilogue.listed is not None:  # one row by definition
        kernels = {0: kernel(name, 1)}
    else:
        kernels = {tile: kernel(f"{name}_rows{tile}", tile) for tile in tile_sizes(settings.target, tiling)}
    return Plan(kernels, tuple(packings), tuple(arguments), tiling=tiling, numbers_name=numbers_name)


def _epilogue(operation: Linear | LinearSwiGlu, columns: int) -> tuple[Epilogue, str]:
    if isinstance(operation, LinearSwiGlu):
        form = "quantized" if operation.quantized else "float"
        gated = SwiGlu(operation.gate.columns, operation.quantized, operation.activation)
        return gated, f"_{GATED_NAMES[operation.activation]}_{form}"
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
