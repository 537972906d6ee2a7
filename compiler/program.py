"""The C file of a whole decoder: prototypes, modules, the four step functions and the descriptor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from string import Template

from forerun.compiler.emit import Module, kernel_declaration, kernel_table, module_function, table_name
from forerun.compiler.memory import aligned
from forerun.compiler.schedules.attention import AttentionSpace
from forerun.compiler.tir import Kernel
from forerun.compiler.traffic import traffic_table


@dataclass(frozen=True)
class Decoder:
    """A scheduled decoder, ready to be written out.

    `name` is what its symbols in objects start with. `attention` and `feed_forward` hold the distinct modules of that
    kind, `embed` is None where rows are hidden states; `windows` gives window and ring of each layer; sizes are those
    of program.h.
    """

    name: str
    target: str
    embed: Module | None
    attention: Sequence[Module]
    feed_forward: Sequence[Module]
    head: Module
    head_maxima: Module
    head_blocks: Module
    layers: int
    hidden_size: int
    vocabulary_size: int
    feature_size: int
    context_length: int
    heads: int
    kv_heads: int
    head_dim: int
    kv_dtype: str
    windows: Sequence[tuple[int, int]]
    max_rows: int
    max_gather: int
    kv_element_bytes: int
    space: AttentionSpace
    weights_bytes: int

    @property
    def symbol(self) -> str:
        """The function that returns the program."""
        return f"forerun_program_{self.name}"

    @property
    def prefix(self) -> str:
        """What the names of its kernels start with in objects."""
        return f"{self.name}_"

    @property
    def modules(self) -> list[Module]:
        """Every distinct module."""
        return [
            *([] if self.embed is None else [self.embed]),
            *self.attention,
            *self.feed_forward,
            self.head,
            self.head_maxima,
            self.head_blocks,
        ]

    @property
    def single_kernels(self) -> dict[str, Kernel]:
        """The kernels that take any number of rows, by name."""
        plans = [choice.plan for module in self.modules for choice in module.choices]
        kernels = [k for plan in plans for k in (*plan.stages, plan.kernels.get(0)) if k is not None]
        return {kernel.name: kernel for kernel in kernels}

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Every kernel by name; modules share those that are the same."""
        plans = [choice.plan for module in self.modules for choice in module.choices]
        kernels = [kernel for plan in plans for kernel in (*plan.stages, *plan.kernels.values())]
        return {kernel.name: kernel for kernel in kernels}


_FILE = Template("""\
/* A decoder compiled by forerun for $target. Generated: do not edit.
 *
 * Each function below is one distinct module of the network. Every thread of the team runs it; kernels share their
 * work out by (tid, threads) and the barrier in finish() brings the threads together. Matmuls take rows in tiles, as
 * few as can be and all of nearly the same size: with tiles of at most 8, 1-8 rows are one tile and 9 rows 5 + 4. Where
 * a matmul uses the matrix unit, calls of many rows take its tiles instead.
 */
#include <forerun/program.h>

/* Kernels, from kernels.o, where their names start with the program's: an app may link several programs. */
$names

$declarations

/* Matmul kernels by rows in a tile. */
$tables
/* Thread-private scratch: a copy of row-wise results, then gathered keys, attention scores and attention parts; parts
 * that threads share lie at the end of the arena. */
#define TAIL_OFFSET $tail_offset
#define SCORES_OFFSET $scores_offset
#define PARTS_OFFSET $parts_offset
#define SHARED_PARTS_OFFSET $tail_offset

static int32_t tile_rows(int32_t rows, int32_t most) {
  const int32_t tiles = (rows + most - 1) / most;
  return (rows + tiles - 1) / tiles;
}

/* Ends a kernel: the threads meet, unless each worked for itself or for the next kernel's rows beside it. */
static void finish(const forerun_call *call, int32_t layer, int32_t kernel, int32_t tid, int meet) {
  if (call->mark) call->mark(call->profile, tid, layer, kernel, FORERUN_MARK_RAN);
  if (!meet) return;
  call->barrier(call->team, tid);
  if (call->mark) call->mark(call->profile, tid, layer, kernel, FORERUN_MARK_MET);
}

$modules
$steps
/* Kernels as a profile counts them: module, name, bytes read a call, a row, a position of the KV cache. */
static const forerun_kernel kernel_table[] = {
$traffic
};

$program""")


def program_source(decoder: Decoder) -> str:
    """Return program.c."""
    arena = max(aligned(module.arena.bytes) for module in decoder.modules)
    space = decoder.space
    scores_offset = arena + aligned(space.tail_bytes)
    parts_offset = scores_offset + aligned(space.scores_bytes)
    tables: dict[str, str] = {}
    for module in decoder.modules:
        for choice in module.choices:
            if 0 not in choice.plan.kernels:
                name = table_name(choice.plan.kernels)
                tables[name] = kernel_table(name, choice.plan.kernels)
    members = {
        "kernels": "sizeof kernel_table / sizeof *kernel_table",
        "kernel": "kernel_table",
        "arena_bytes": arena + space.shared_bytes,
        "scratch_bytes": parts_offset + space.parts_bytes,
        "scratch_bytes_per_position": space.parts_bytes_per_position,
        **({} if decoder.embed is None else {"embed": "embed_step"}),
        **{
            name: f"{name}_step"
            for name in ("attention", "feed_forward", "head", "head_maxima", "head_blocks")
        },
    }
    return _FILE.substitute(
        target=decoder.target,
        names="\n".join(f"#define {name} {decoder.prefix}{name}" for name in decoder.kernels),
        declarations="\n".join(kernel_declaration(kernel) for kernel in decoder.single_kernels.values()),
        tables="\n".join(tables.values()),
        tail_offset=arena,
        scores_offset=scores_offset,
        parts_offset=parts_offset,
        modules="\n".join(_module_functions(decoder.modules)),
        traffic=traffic_table(decoder.modules),
        steps=_steps(decoder),
        program=program_object(decoder, members),
    )


_PROGRAM = Template("""\
static const forerun_layer layer_table[$layers] = {
$layer_table
};

static const forerun_program program = {
    .abi = FORERUN_PROGRAM_ABI,
$members
    .layer = layer_table,
};

const forerun_program *$symbol(void);

const forerun_program *$symbol(void) { return &program; }
""")
_SIZES = (
    *("layers", "hidden_size", "vocabulary_size", "feature_size", "context_length", "max_rows", "max_gather"),
    *("kv_element_bytes", "weights_bytes"),
)


def program_object(decoder: Decoder, members: Mapping[str, object]) -> str:
    """Return the descriptor with the sizes that every program has and these members, and the function that gives it."""
    layers = (
        f"    {{{decoder.kv_heads}, {decoder.head_dim}, {window}, {ring}}},"
        for window, ring in decoder.windows
    )
    named = {**{name: getattr(decoder, name) for name in _SIZES}, **members}
    return _PROGRAM.substitute(
        layers=decoder.layers,
        layer_table="\n".join(layers),
        members="\n".join(f"    .{name} = {value}," for name, value in named.items()),
        symbol=decoder.symbol,
    )


def _module_functions(modules: Sequence[Module]) -> list[str]:
    firsts = accumulate((len(module.choices) for module in modules), initial=0)
    return [module_function(module, first) for module, first in zip(modules, firsts, strict=False)]


def _steps(decoder: Decoder) -> str:
    once = [
        f"static void {module.name}_step(const forerun_call *call, int32_t tid) {{ {module.name}(call, 0, 0, tid); }}\n"
        for module in (decoder.embed, decoder.head, decoder.head_maxima, decoder.head_blocks)
        if module is not None
    ]
    return "\n".join(
        [*once, _layered("attention", decoder.attention), _layered("feed_forward", decoder.feed_forward)]
    )


def _layered(kind: str, modules: Sequence[Module]) -> str:
    """Return a step function that finds a layer's module and its row in that module's weight table.

    Without modules of the kind it does nothing: the layers of the network have no such sublayer.
    """
    signature = f"static void {kind}_step(const forerun_call *call, int32_t layer, int32_t tid)"
    if not modules:
        return f"{signature} {{ (void)call, (void)layer, (void)tid; }}\n"
    place = {layer: (m, row) for m, module in enumerate(modules) for row, layer in enumerate(module.layers)}
    ordered = [place[layer] for layer in sorted(place)]
    functions = ", ".join(module.name for module in modules)
    return "\n".join(
        [
            f"/* {kind}: which module each layer is, and its row in that module's weight table. */",
            f"static const int32_t {kind}_place[{len(ordered)}][2] = {{",
            "  " + ", ".join(f"{{{m}, {row}}}" for m, row in ordered) + ",",
            "};",
            "",
            f"{signature} {{",
            "  static void (*const modules[])(const forerun_call *, int32_t, int32_t, int32_t) = {"
            + functions
            + "};",
            f"  modules[{kind}_place[layer][0]](call, {kind}_place[layer][1], layer, tid);",
            "}",
            "",
        ]
    )
