"""The rules for everything between the matmuls: embedding, norms, gating, rotary, attention."""

from __future__ import annotations

from forerun.compiler.operations import CachedAttention, Embed, Norm, Operation, Quantize, RopeStore, SwiGlu
from forerun.compiler.pack import Packing
from forerun.compiler.schedules.attention import attention_merge, attention_parts, attention_rows
from forerun.compiler.schedules.embed import embed_float, embed_quantized
from forerun.compiler.schedules.layouts import LAYOUTS
from forerun.compiler.schedules.norm import quantize_rows, rms_norm, swiglu
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
    SharedParts,
    Stage,
)
from forerun.compiler.schedules.rope import AttentionShape, ring_positions, rope_store
from forerun.compiler.tir import LANES, Kernel
from forerun.compiler.vector_math import GATED_NAMES, GROUP
from forerun.targets import Target


def _outputs(quantized: bool) -> list[Argument]:
    return [Output(part) for part in QUANTIZED_PARTS] if quantized else [Output()]


def form_of(quantized: bool) -> str:
    """Return what names of kernels say of their outputs."""
    return "quantized" if quantized else "float"


def _window(positions: int) -> str:
    return f"_window{positions}" if positions else ""


def _scaled(factor: float) -> str:
    return "" if factor == 1.0 else "_scaled"


def uneven(columns: int, quantized: bool) -> Decline | None:
    """Decline columns that vectors, or groups of quantized ones, do not divide."""
    step = GROUP if quantized else LANES
    return Decline(f"{columns} columns are no multiple of {step}") if columns % step else None


class EmbedRows:
    """One table row a token."""

    name = "embed_rows"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Read the layout that the target's matmuls read, so that a tied head shares the table."""
        assert isinstance(operation, Embed)
        table = operation.table
        name = f"embed_{table.scheme.name}_{table.inputs}{_scaled(operation.factor)}"
        kernel = self._kernel(name, settings.target, operation)
        if not table.scheme.quantized:
            packing = Packing("float_blocks", table.parts, (table.columns,), row_bytes=4 * table.inputs)
            return Plan({0: kernel}, (packing,), (Field("token_ids"), Packed(0), Output()), by_row=False)
        layout = LAYOUTS[settings.target.weight_layout]
        scheme = table.scheme
        blocks, halves = table.inputs * scheme.bits // 8, table.inputs // scheme.group * 2
        packings = [
            Packing(
                "blocks",
                table.parts[:1],
                (table.columns,),
                block_layout=layout.name,
                scheme=scheme,
                row_bytes=blocks,
            )
        ]
        packings += [
            Packing("halves", (part,), (table.columns,), scheme=scheme, row_bytes=halves)
            for part in table.parts[1:]
        ]
        arguments: tuple[Argument, ...] = (
            Field("token_ids"),
            *(Packed(i) for i in range(len(packings))),
            Output(),
        )
        return Plan({0: kernel}, tuple(packings), arguments)

    def _kernel(self, name: str, target: Target, o: Embed) -> Kernel:
        scheme, inputs = o.table.scheme, o.table.inputs
        if not scheme.quantized:
            return embed_float(name, target.arithmetic, inputs, o.factor)
        layout = LAYOUTS[target.weight_layout]
        return embed_quantized(name, target.arithmetic, layout, scheme, inputs, o.factor)


class RmsNorm:
    """RMS normalization, with quantization where a quantized matmul follows."""

    name = "rms_norm"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline rows that are no whole number of vectors or groups."""
        assert isinstance(operation, Norm)
        if (declined := uneven(operation.columns, operation.quantized)) is not None:
            return declined
        o = operation
        name = f"rms_norm_{form_of(o.quantized)}_{o.columns}_eps{o.epsilon:g}{'_add' if o.add else ''}"
        name = name.replace("-", "m").replace(".", "p")
        kernel = self._kernel(name, settings.target, o)
        weight = Packing("vector", (operation.weight,), (operation.columns,))
        arguments = (Input(0), Packed(0), *_outputs(operation.quantized))
        return Plan({0: kernel}, (weight,), arguments, by_row=True)

    def _kernel(self, name: str, target: Target, o: Norm) -> Kernel:
        return rms_norm(name, target.arithmetic, o.columns, o.epsilon, o.quantized, o.add)


class QuantizeRows:
    """Quantization on its own."""

    name = "quantize_rows"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline rows that are no whole number of groups."""
        assert isinstance(operation, Quantize)
        if (declined := uneven(operation.columns, True)) is not None:
            return declined
        kernel = self._kernel(f"quantize_{operation.columns}", settings.target, operation)
        return Plan({0: kernel}, (), (Input(0), *_outputs(True)), by_row=True)

    def _kernel(self, name: str, target: Target, o: Quantize) -> Kernel:
        return quantize_rows(name, target.arithmetic, o.columns)


class SwiGluRows:
    """The gate on its own, for gate and up projections whose schemes differ."""

    name = "swiglu"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline rows that are no whole number of vectors or groups."""
        assert isinstance(operation, SwiGlu)
        if (declined := uneven(operation.columns, operation.quantized)) is not None:
            return declined
        o = operation
        name = f"{GATED_NAMES[o.activation]}_{form_of(o.quantized)}_{o.columns}"
        kernel = self._kernel(name, settings.target, o)
        return Plan({0: kernel}, (), (Input(0), *_outputs(operation.quantized)))

    def _kernel(self, name: str, target: Target, o: SwiGlu) -> Kernel:
        return swiglu(name, target.arithmetic, o.columns, o.quantized, o.activation)


class RopeStoreRule:
    """Rotation and cache write, one head an item."""

    name = "rope_store"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline heads that vectors of 16 do not divide."""
        assert isinstance(operation, RopeStore)
        if operation.head_dim % LANES:
            return Decline(f"head_dim {operation.head_dim} is no multiple of {LANES}")
        o = operation
        shape = AttentionShape(
            *(o.heads, o.kv_heads, o.head_dim, o.scale, settings.kv_dtype, o.norm_epsilon),
            *(o.window, ring_positions(o.window, settings.max_gather), o.cos is not None),
        )
        suffix = ("" if o.q_norm is None else "_norm") + _window(o.window)
        suffix += "" if shape.rotates else "_unrotated"
        name = f"rope_store_{o.heads}_{o.kv_heads}x{o.head_dim}{suffix}"
        kernel = self._kernel(name, settings.target, shape)
        tables = [name for name in (o.cos, o.sin) if name is not None]
        norms = [name for name in (o.q_norm, o.k_norm) if name is not None]
        packings = (
            *(Packing("vector", (name,), (0,), row_bytes=2 * o.head_dim) for name in tables),
            *(Packing("vector", (name,), (0,)) for name in norms),
        )
        fields = ("positions", "sequences", "slots") if tables else ("sequences", "slots")
        arguments: tuple[Argument, ...] = (
            Input(0),
            *(Field(name) for name in fields),
            *(Packed(i) for i in range(len(packings))),
            Output(),
            *(Field(name) for name in ("keys", "values", "capacity")),
        )
        return Plan({0: kernel}, packings, arguments)

    def _kernel(self, name: str, target: Target, shape: AttentionShape) -> Kernel:
        return rope_store(name, target.arithmetic, shape)


def attention_shape(o: CachedAttention, settings: Settings) -> AttentionShape:
    """Return the sizes of an attention module's kernels; queries come scaled."""
    return AttentionShape(
        *(o.heads, o.kv_heads, o.head_dim, 1.0, settings.kv_dtype, None),
        *(o.window, ring_positions(o.window, settings.max_gather)),
    )


def attention_size(o: CachedAttention) -> str:
    """Return what tells an attention module's kernels from others'."""
    return f"{o.heads}_{o.kv_heads}x{o.head_dim}{_window(o.window)}"


class AttentionBlocked:
    """Attention in blocks of positions: shared by block for few rows, by row for many."""

    name = "attention_blocked"

    def apply(self, operation: Operation, settings: Settings) -> Plan | Decline:
        """Decline heads that vectors, or where the output is quantized groups, do not divide."""
        assert isinstance(operation, CachedAttention)
        if (declined := uneven(operation.head_dim, operation.quantized)) is not None:
            return declined
        o, shape = operation, attention_shape(operation, settings)
        size = attention_size(o)
        target, outputs = settings.target, _outputs(o.quantized)
        fields = ("positions", "sequences", "gather_start", "gather", "keys", "values")
        read: tuple[Argument, ...] = (
            Input(0),
            *(Field(name) for name in fields),
            Private("tail"),
            Private("scores"),
        )
        element = {"float16": 2, "float32": 4}[settings.kv_dtype]
        scalars: tuple[Argument, ...] = (Field("capacity"), Field("gather_stride"))
        parts = Stage(
            attention_parts(f"attention_parts_{size}", target, shape), (*read, SharedParts(), *scalars)
        )
        merge = Stage(
            attention_merge(f"attention_merge_{form_of(o.quantized)}_{size}", target, shape, o.quantized),
            (SharedParts(), Field("positions"), *outputs),
        )
        rows = attention_rows(f"attention_rows_{form_of(o.quantized)}_{size}", target, shape, o.quantized)
        return Plan(
            {0: rows},
            (),
            (*read, Private("parts"), *outputs, *scalars),
            position_bytes=2 * o.kv_heads * o.head_dim * element,
            window=o.window,
            few=(parts, merge),
        )
