"""The schedule rules for devices: those of the CPU with other kernels, as arguments and weights are the same."""

from __future__ import annotations

from dataclasses import replace

from forerun.compiler.gpu import cache, matmul, rows
from forerun.compiler.gpu.attention import SHARED_BYTES, attention_merge, attention_parts, shared_bytes
from forerun.compiler.gpu.matrix_unit import matrix_matmul, suits_matrix_unit
from forerun.compiler.gpu.slabs import slabs_of
from forerun.compiler.gpu.words import joined
from forerun.compiler.operations import (
    CachedAttention,
    Embed,
    Linear,
    LinearSwiGlu,
    Norm,
    Operation,
    Quantize,
    RopeStore,
    SwiGlu,
)
from forerun.compiler.pack import Packing
from forerun.compiler.schedules.epilogues import Epilogue
from forerun.compiler.schedules.matmul import MatmulShape
from forerun.compiler.schedules.matmul_rules import GroupedRule, MatmulFloat, stacked_rows
from forerun.compiler.schedules.plan import (
    Decline,
    Field,
    Input,
    Output,
    Packed,
    Plan,
    Settings,
    SharedParts,
    Stage,
)
from forerun.compiler.schedules.rope import AttentionShape
from forerun.compiler.schedules.row_rules import (
    EmbedRows,
    QuantizeRows,
    RmsNorm,
    RopeStoreRule,
    SwiGluRows,
    attention_shape,
    attention_size,
    form_of,
    uneven,
)
from forerun.compiler.schemes import Scheme
from forerun.compiler.tir import Kernel
from forerun.targets import Target
from forerun.targets.gpu import GpuTarget


def _device(target: Target) -> GpuTarget:
    assert isinstance(target, GpuTarget)
    return target


class _Joined:
    """A rule of the CPU's whose kernels take arrays that are several there as one, and large weights in slabs."""

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline what the CPU's rule declines."""
        plan: Plan | Decline = super().apply(operation, settings)  # type: ignore[misc]
        if isinstance(plan, Decline):
            return plan
        plan = replace(plan, arguments=joined(plan.arguments))
        if not isinstance(operation, Embed | Linear | LinearSwiGlu):
            return plan
        matrices = (operation.table,) if isinstance(operation, Embed) else stacked_rows(operation)
        columns, first = sum(each.columns for each in matrices), matrices[0]
        slabs = slabs_of(_device(settings.target), columns, first.inputs, first.scheme)
        more = [matmul.ROW_ITEMS] if isinstance(operation, Linear) and operation.head == "blocks" else []
        more += list(slabs.scalars)
        arguments = (*plan.arguments, *(Field(name) for name in more))
        return replace(plan, arguments=arguments, slab_blocks=slabs.each if slabs.count > 1 else 0)


class GpuMatmul(_Joined, GroupedRule):
    """Quantized weights, a workgroup for some blocks of columns."""

    name = "gpu_matmul"

    def _layout(self, target: Target) -> str:
        return target.weight_layout

    def _build(
        self, target: Target, scheme: Scheme, name: str, shape: MatmulShape, epilogue: Epilogue
    ) -> Kernel:
        device = _device(target)
        if suits_matrix_unit(device, shape, epilogue):
            return matrix_matmul(name, device, scheme, shape, epilogue)
        return matmul.quantized_matmul(name, device, scheme, shape, epilogue)


class GpuMatmulFloat(_Joined, MatmulFloat):
    """float32 weights."""

    name = "gpu_matmul_float"

    def _build(self, target: Target, name: str, shape: MatmulShape, epilogue: Epilogue) -> Kernel:
        return matmul.float_matmul(name, _device(target), shape, epilogue)


class GpuEmbed(_Joined, EmbedRows):
    """One table row a token."""

    name = "gpu_embed"

    def _kernel(self, name: str, target: Target, o: Embed) -> Kernel:
        scheme, shape = o.table.scheme, (o.table.columns, o.table.inputs)
        if not scheme.quantized:
            return rows.embed_float(name, _device(target), shape, o.factor)
        return rows.embed_quantized(name, _device(target), scheme, shape, o.factor)


class GpuNorm(_Joined, RmsNorm):
    """RMS normalization, with quantization where a quantized matmul follows."""

    name = "gpu_norm"

    def _kernel(self, name: str, target: Target, o: Norm) -> Kernel:
        return rows.rms_norm(name, _device(target), o.columns, o.epsilon, o.quantized, o.add)


class GpuQuantize(_Joined, QuantizeRows):
    """Quantization on its own."""

    name = "gpu_quantize"

    def _kernel(self, name: str, target: Target, o: Quantize) -> Kernel:
        return rows.quantize_rows(name, _device(target), o.columns)


class GpuSwiGlu(_Joined, SwiGluRows):
    """The gate on its own."""

    name = "gpu_swiglu"

    def _kernel(self, name: str, target: Target, o: SwiGlu) -> Kernel:
        return rows.gated_rows(name, _device(target), o.columns, o.quantized, o.activation)


class GpuRopeStore(RopeStoreRule):
    """Rotation and cache write, a workgroup for a head of a row."""

    name = "gpu_rope_store"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline what the CPU's rule declines; both norms are one array."""
        plan = super().apply(operation, settings)
        assert isinstance(operation, RopeStore)
        o = operation
        if isinstance(plan, Decline):
            return plan
        if o.q_norm is None:
            return replace(plan, arguments=joined(plan.arguments))
        norms = Packing("vector", (o.q_norm, o.k_norm), (o.head_dim, o.head_dim))
        weights, last = (*plan.weights[:-2], norms), Packed(len(plan.weights) - 1)
        return replace(plan, weights=weights, arguments=joined(a for a in plan.arguments if a != last))

    def _kernel(self, name: str, target: Target, shape: AttentionShape) -> Kernel:
        return cache.rope_store(name, _device(target), shape)


class GpuAttention:
    """Attention in blocks of positions, then what puts them together: both for any number of rows."""

    name = "gpu_attention"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline heads that groups do not divide, and more queries a key than a workgroup has memory for."""
        assert isinstance(operation, CachedAttention)
        if (declined := uneven(operation.head_dim, operation.quantized)) is not None:
            return declined
        o, shape, target = operation, attention_shape(operation, settings), _device(settings.target)
        if shared_bytes(shape) > SHARED_BYTES:
            return Decline(
                f"{shape.group} query heads of {shape.head_dim} a key head take {shared_bytes(shape)} bytes of shared "
                f"memory; there are {SHARED_BYTES}"
            )
        fields = ("row_table", "gather", "keys", "values")
        scalars = ("capacity", "gather_stride", "block_count", "first_row")
        parts = Stage(
            attention_parts(f"attention_parts_{attention_size(o)}", target, shape),
            (Input(0), *map(Field, fields), SharedParts(), *map(Field, scalars)),
        )
        name = f"attention_merge_{form_of(o.quantized)}_{attention_size(o)}"
        merge = Stage(
            attention_merge(name, target, shape, o.quantized),
            (SharedParts(), Field("row_table"), Output(), Field("first_row")),
        )
        element = {"float16": 2, "float32": 4}[settings.kv_dtype]
        return Plan(
            {},
            (),
            (),
            position_bytes=2 * o.kv_heads * o.head_dim * element,
            window=o.window,
            few=(parts, merge),
        )
