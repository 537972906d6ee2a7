"""The C file of a decoder for a device: the kernels' sources and the tables of their launches (see device.h)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from string import Template

from forerun.compiler.emit import Module, wrapped
from forerun.compiler.gpu.attention import part_floats
from forerun.compiler.gpu.cache import move_rows
from forerun.compiler.gpu.draws import list_blocks, pick_blocks, score_blocks
from forerun.compiler.gpu.kernel_table import KernelTable, given_kind
from forerun.compiler.gpu.parts import SlabParts, WeightParts
from forerun.compiler.gpu.slabs import SLAB
from forerun.compiler.gpu.words import QuantizedWords
from forerun.compiler.gpu.writer import GpuKernel
from forerun.compiler.graph import Graph, Node, Value
from forerun.compiler.memory import aligned
from forerun.compiler.program import Decoder, program_object
from forerun.compiler.schedules import Choice
from forerun.compiler.schedules.plan import Argument, Field, Input, Output, Packed, SharedParts, Stage
from forerun.compiler.schedules.rope import BLOCK, AttentionShape
from forerun.compiler.tir import LANES, Kernel
from forerun.errors import CompileError
from forerun.targets.gpu import GpuTarget

# Rows whose parts of attention are in memory at a time.
CHUNK_ROWS = 64

_ARRAYS = (
    "hidden",
    "features",
    "logits",
    "maxima",
    "items",
    "block_logits",
    "row_table",
    "gather",
    "keys",
    "values",
)
_NUMBERS = (
    "rows",
    "first_row",
    "capacity",
    "gather_stride",
    "block_count",
    "item_count",
    "row_items",
    "move_count",
    "layer",
)
_FIELDS = frozenset({*_ARRAYS, *_NUMBERS, "moves"})
# The form of the head that computes the blocks that were picked or listed for each row.
PICKS = "head_picks"
# Where the forms of the head find their rows.
_HEAD_ROWS = dict.fromkeys(("head", "head_maxima", PICKS), "head_hidden") | {"head_blocks": "drawn_hidden"}

_FILE = Template("""\
/* A decoder compiled by forerun for $target. Generated: do not edit.
 *
 * The kernels' sources, and for each distinct module of the network its launches with what their kernels are given.
 */
#include <forerun/device.h>

$kernels
static const forerun_weight weight_list[] = {
$weights
};

static const uint64_t slot_bytes[] = {$slots};

$modules
$layers
static const forerun_module *const move_list[] = {$moves};

static const forerun_device_program device = {
    .device = "$device",
    .binary = $binary_name,
    .kernel_count = sizeof kernel_list / sizeof *kernel_list,
    .kernels = kernel_list,
    .weight_count = sizeof weight_list / sizeof *weight_list,
    .weights = weight_list,
    .slot_count = sizeof slot_bytes / sizeof *slot_bytes,
    .slot_bytes = slot_bytes,
    .part_bytes = $part_bytes,
    .block_positions = $block_positions,
$steps
    .moves = move_list,
    .pick = &pick_module,
    .list = &list_module,
};

$program""")


def device_program_source(decoder: Decoder, target: GpuTarget) -> str:
    """Return program.c.

    Raises:
        CompileError: TVM refuses a kernel, or nvcc, or a kernel does not fit into its registers.
    """
    tables = _Tables(decoder, target)
    picks = replace(decoder.head_blocks, name=PICKS)
    modules = "\n".join(tables.module_table(module) for module in (*decoder.modules, picks))
    moves, move_modules = tables.moves()
    draw_modules = tables.draws()
    layered = {"attention": decoder.attention, "feed_forward": decoder.feed_forward}
    layers = "\n".join(tables.layer_modules(kind, some) for kind, some in layered.items())
    shape = AttentionShape(decoder.heads, decoder.kv_heads, decoder.head_dim, 1.0, decoder.kv_dtype)
    once = {"embed": decoder.embed, "head": decoder.head}
    once |= {"head_maxima": decoder.head_maxima, "head_blocks": decoder.head_blocks, PICKS: picks}
    steps = [
        f"    .{name} = {{&{name}_module, {name}_weights[0]}}," for name, m in once.items() if m is not None
    ]
    steps += [f"    .{kind} = {kind}_layers," for kind in layered]
    kernels = KernelTable.of(tables.kernels.values(), target)
    return _FILE.substitute(
        target=decoder.target,
        program=program_object(decoder, {"device": "&device"}),
        kernels=kernels.text,
        binary_name=kernels.binary,
        device=target.device,
        weights="\n".join(f"    {{{offset}, {size}}}," for offset, size in tables.weights),
        slots=", ".join(map(str, tables.slots)) or "0",
        modules=modules + move_modules + draw_modules,
        layers=layers,
        moves=", ".join(moves),
        part_bytes=4 * CHUNK_ROWS * decoder.heads * part_floats(shape),
        block_positions=BLOCK,
        steps="\n".join(steps),
    )


class _Tables:
    """What the tables of all modules share: kernels, weights and memory for activations."""

    def __init__(self, decoder: Decoder, target: GpuTarget) -> None:
        self.decoder, self.target = decoder, target
        self.kernels: dict[str, GpuKernel] = {}
        self.weights: dict[tuple[int, int], int] = {}  # (offset, bytes) → number
        self.slots: list[int] = []

    def _number(self, kernel: Kernel) -> int:
        assert isinstance(kernel, GpuKernel)
        self.kernels.setdefault(kernel.name, kernel)
        return list(self.kernels).index(kernel.name)

    def module_table(self, module: Module) -> str:
        """Return a module's launches, and its weights in each of its layers."""
        slots, parts = self._place(module.graph), WeightParts(module)
        entries = [list[str](), list[str]()]
        for node, choice in zip(module.graph.nodes, module.choices, strict=True):
            stages = _stages(choice)
            for slab in parts.slabs(choice.plan):
                for i, (stage, tiles) in enumerate(stages):
                    given = [
                        self._argument(module, node, argument, slots, slab) for argument in stage.arguments
                    ]
                    chunks = (CHUNK_ROWS, len(stages)) if choice.plan.few is not None and i == 0 else (0, 1)
                    self._add_launch(module.name, entries, tiles, given, chunks)
        numbers = [
            [
                self.weights.setdefault((row[weight] + start, size), len(self.weights))
                for weight, start, size in parts.listed
            ]
            for row in module.offsets
        ]
        rows = "\n".join(f"    {{{', '.join(map(str, row)) or '0'}}}," for row in numbers)
        width = max(1, len(numbers[0]))
        weights = f"static const int32_t {module.name}_weights[{len(numbers)}][{width}] = {{\n{rows}\n}};\n"
        return weights + _module_text(module.name, *entries)

    def moves(self) -> tuple[list[str], str]:
        """Return each layer's module that moves rows of its cache, and their tables."""
        decoder, names, text = self.decoder, list[str](), dict[int, str]()
        for window, ring in decoder.windows:
            name = f"moves_{ring}" if ring else "moves"
            names.append(f"&{name}_module")
            if ring in text:
                continue
            shape = AttentionShape(
                *(
                    decoder.heads,
                    decoder.kv_heads,
                    decoder.head_dim,
                    1.0,
                    decoder.kv_dtype,
                    None,
                    window,
                    ring,
                )
            )
            kernel = move_rows(f"move_rows_{ring}" if ring else "move_rows", self.target, shape)
            text[ring] = self._module_of(name, kernel)
        return names, "\n".join(text.values())

    def draws(self) -> str:
        """Return the tables of the modules that choose blocks for draws."""
        vocabulary, target = self.decoder.vocabulary_size, self.target
        blocks = -(-vocabulary // LANES)
        pick = self._module_of("pick", pick_blocks("pick_blocks", target, blocks))
        scores = score_blocks("score_blocks", target, vocabulary)
        return f"\n{pick}\n{self._module_of('list', scores, list_blocks('list_blocks', target, blocks))}"

    def _module_of(self, name: str, *kernels: GpuKernel) -> str:
        """Return the tables of a module whose kernels are given what their parameters are called after."""
        entries = [list[str](), list[str]()]
        for kernel in kernels:
            given = [f"{{{given_kind(p.name)}, 0}}" for p in kernel.parameters]
            self._add_launch(name, entries, {0: kernel}, given, (0, 1))
        return _module_text(name, *entries)

    def _add_launch(
        self,
        name: str,
        entries: list[list[str]],
        tiles: Mapping[int, Kernel],
        given: Sequence[str],
        chunks: tuple[int, int],
    ) -> None:
        """Add what a launch is given, and the launch; `tiles` are its kernels by the most rows of a tile."""
        if 0 in tiles:
            kernels, most = [self._number(tiles[0])], 0
        else:
            most = max(tiles)
            fitting = (min(size for size in tiles if size >= rows) for rows in range(1, most + 1))
            kernels = [-1, *(self._number(tiles[size]) for size in fitting)]
        numbers, all_given = ", ".join(map(str, kernels)), [*given, f"{{{given_kind('rows')}, 0}}"]
        array = f"{name}_given_{len(entries[1])}"
        entries[0].extend(wrapped(f"static const forerun_given {array}[] = {{{', '.join(all_given)}}};"))
        entries[1].extend(
            [
                f"    {{(const int16_t[]){{{numbers}}}, {most}, {len(all_given)}, {array}, {chunks[0]}, {chunks[1]}}},"
            ]
        )

    def layer_modules(self, kind: str, modules: Sequence[Module]) -> str:
        """Return which module each layer is."""
        place = {layer: (m.name, row) for m in modules for row, layer in enumerate(m.layers)}
        lines = [
            "    {{&{0}_module, {0}_weights[{1}]}},".format(*place[layer])
            if layer in place
            else "    {0, 0},"
            for layer in range(self.decoder.layers)
        ]
        body = "\n".join(lines)
        return f"static const forerun_layer_module {kind}_layers[{len(lines)}] = {{\n{body}\n}};\n"

    def _place(self, graph: Graph) -> dict[Value, int]:
        """Give each value that lives within a module a slot, free again after its last reader."""
        roles = {*graph.inputs, graph.outputs[0]}
        last = {value: i for i, node in enumerate(graph.nodes) for value in (*node.inputs, *node.outputs)}
        held: dict[Value, int] = {}
        for i, node in enumerate(graph.nodes):
            for value in node.outputs:
                if value in roles or value in held:
                    continue
                taken = {slot for other, slot in held.items() if last[other] >= i}
                slot = next(s for s in range(len(self.slots) + 1) if s not in taken)
                self.slots += [0] * (slot == len(self.slots))
                self.slots[slot] = max(self.slots[slot], aligned(self._bytes(node, value)))
                held[value] = slot
        return held

    def _bytes(self, node: Node, value: Value) -> int:
        columns = int(value.shape[-1])
        quantized = bool(getattr(node.detail, "quantized", False))
        return 4 * self.decoder.max_rows * (QuantizedWords(columns).row_words if quantized else columns)

    def _argument(
        self, module: Module, node: Node, argument: Argument, slots: Mapping[Value, int], slab: SlabParts
    ) -> str:
        """Return kind and index of what a kernel is given for one parameter."""
        if isinstance(argument, Packed):
            return f"{{{given_kind('weight')}, {slab.number(argument.index)}}}"
        if argument == Field(SLAB):
            return f"{{{given_kind('constant')}, {slab.slab}}}"
        if isinstance(argument, SharedParts):
            return f"{{{given_kind('parts')}, 0}}"
        if isinstance(argument, Input | Output):
            value = node.inputs[argument.index] if isinstance(argument, Input) else node.output
            if value in slots:
                return f"{{{given_kind('slot')}, {slots[value]}}}"
            name = module.roles[value].removeprefix("call->")
            return f"{{{given_kind(_HEAD_ROWS.get(module.name, name) if name == 'hidden' else name)}, 0}}"
        if not isinstance(argument, Field) or argument.name not in _FIELDS:
            raise CompileError(f"{module.name}: {argument} is nothing that kernels of a device are given")
        return f"{{{given_kind(argument.name)}, 0}}"


def _stages(choice: Choice) -> list[tuple[Stage, Mapping[int, Kernel]]]:
    """Return the kernels that run an operation one after the other, each by rows of a tile."""
    plan = choice.plan
    if plan.few is not None:
        return [(stage, {0: stage.kernel}) for stage in plan.few]
    return [(Stage(next(iter(plan.kernels.values())), plan.arguments), plan.kernels)]


def _module_text(name: str, given: Iterable[str], launches: Sequence[str]) -> str:
    lines = [*given, f"static const forerun_launch {name}_launches[] = {{", *launches, "};"]
    lines.append(f"static const forerun_module {name}_module = {{{name}_launches, {len(launches)}}};")
    return "\n".join(lines) + "\n"
