"""From an export directory to a bundle. Read `compile_export` top to bottom: each line is a stage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import forerun
from forerun.compiler import bundle, emit, export_reader, memory, pack
from forerun.compiler.converters import COMPOSITES
from forerun.compiler.drafts import draft_path, listing, open_drafts
from forerun.compiler.export_reader import Export, ModuleCall
from forerun.compiler.from_onnx import import_function
from forerun.compiler.fuse import fuse
from forerun.compiler.fuse.head import FORMS, HEAD, head_forms
from forerun.compiler.graph import Dimension, Graph, Value
from forerun.compiler.link import link
from forerun.compiler.native import write_object
from forerun.compiler.program import Decoder, program_source
from forerun.compiler.schedules import Choice, schedule
from forerun.compiler.schedules.attention import attention_space
from forerun.compiler.schedules.plan import Settings
from forerun.compiler.schedules.rope import AttentionShape
from forerun.compiler.schedules.tiling import Tiling
from forerun.compiler.text import write_text
from forerun.errors import CompileError, OptionError
from forerun.staging import staged_folder
from forerun.targets import Target, find_target

MAX_ROWS = 256  # rows one call may carry: the prefill block
KV_DTYPES: Mapping[str, tuple[str, int]] = {"f16": ("float16", 2), "f32": ("float32", 4)}

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class CompileReport:
    """What was compiled, and why each kernel was chosen.

    `explanation` has a line for each operation of each distinct module: the rule taken, those that declined.
    `notes` say what the bundle lacks, for whom.
    `tuned` names the matmuls that were built with numbers from `forerun tune`. `drafts` are the reports of the draft
    components in the bundle, by name.
    """

    bundle: Path
    target: str
    modules: tuple[str, ...]
    kernels: int
    weights_bytes: int
    library_bytes: int
    seconds: float
    explanation: tuple[str, ...] = field(default=())
    tuned: tuple[str, ...] = ()
    drafts: Mapping[str, CompileReport] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def compile_export(
    directory: Path,
    output: Path,
    target: str | None = None,
    *,
    kv: str = "f16",
    tuned: Mapping[str, Tiling] = MappingProxyType({}),
    drafts: Mapping[str, Path] = MappingProxyType({}),
    progress: Progress | None = None,
) -> CompileReport:
    """Compile an export, of a model or of a draft component, for one target and write the bundle.

    Args:
        directory: what `forerun export` wrote.
        output: the bundle folder; written aside and renamed, an existing bundle is replaced.
        target: a target's name, None for this machine's best.
        kv: element of the KV cache, `f16` or `f32`.
        tuned: numbers for matmuls by the name of their kernels, from `forerun tune`; the target's for all others.
        drafts: exports of draft components of this model, by the names they get in the bundle.
        progress: called with a stage's name and the part of the whole done, 0…1.

    Raises:
        CompileError, TargetError, OptionError, OutputError.
    """
    tell = progress or (lambda stage, done: None)
    chosen = find_target(target)
    if kv not in KV_DTYPES:
        raise OptionError(f"unknown KV element {kv!r}; allowed: {', '.join(KV_DTYPES)}")
    settings = Settings(chosen, KV_DTYPES[kv][0], MAX_ROWS, tuned)
    with staged_folder(output, bundle.MANIFEST, "forerun compile") as folder:
        tell("reading", 0.0)
        export = export_reader.open_export(Path(directory))
        components = open_drafts(drafts, export.settings)
        parts, reports = len(components) + 1, {}
        for i, (name, draft) in enumerate(components.items()):
            place = folder / draft_path(name)
            place.mkdir(parents=True)
            reports[name] = _write_bundle(draft, place, settings, kv, _part(tell, f"{name}: ", i, parts))
        listed = {"drafts": listing(components)} if components else {}
        report = _write_bundle(export, folder, settings, kv, _part(tell, "", parts - 1, parts), **listed)
    tell("done", 1.0)
    return replace(report, bundle=Path(output), drafts=reports)


def _part(tell: Progress, prefix: str, index: int, count: int) -> Progress:
    """Tell of part number `index` of `count` equal ones."""
    return lambda stage, done: tell(prefix + stage, (index + done) / count)


def _write_bundle(
    export: Export, folder: Path, settings: Settings, kv: str, tell: Progress, **extra: Any
) -> CompileReport:
    """Compile one network into a folder; `extra` are further members of its manifest."""
    started = time.perf_counter()
    tell("importing", 0.05)
    graphs = fused_modules(export)
    tell("scheduling", 0.3)
    choices = {name: [schedule(name, n, settings) for n in graph.nodes] for name, graph in graphs.items()}
    tell("packing weights", 0.4)
    modules, weights_bytes = pack_modules(export, graphs, choices, folder / "weights.bin")
    tell("building kernels", 0.6)
    decoder = assemble(export, settings, kv, modules, weights_bytes)
    library = build_library(decoder, settings.target, folder)
    tell("writing the bundle", 0.95)
    bundle.copy_files(export.directory, folder)
    text = write_text(folder, export.settings)
    tilings, tuned = matmul_tilings(choices), settings.tuned
    described = {name: {**t.described(), "tuned": name in tuned} for name, t in tilings.items()}
    if text.refusal:
        extra["no_text"] = text.refusal
    bundle.write_manifest(
        folder, export.settings, settings.target, library, kv=kv, kernels=described, **extra
    )
    return CompileReport(
        folder,
        settings.target.name,
        tuple(name for name in graphs if name not in FORMS or name == HEAD),
        len(decoder.kernels),
        weights_bytes,
        (folder / library).stat().st_size,
        time.perf_counter() - started,
        (*explain(graphs, choices), *text.lines()),
        tuple(name for name in tilings if name in tuned),
        notes=tuple(text.lines()),
    )


def fused_modules(export: Export) -> dict[str, Graph]:
    """Return each distinct function as a graph of fused operations, and the further forms of the head."""
    graphs = import_modules(export)
    for graph in graphs.values():
        fuse(graph)
    return graphs | head_forms(graphs[HEAD])


def matmul_tilings(choices: Mapping[str, list[Choice]]) -> dict[str, Tiling]:
    """Return the numbers of each matmul's kernels by their common name."""
    plans = [choice.plan for some in choices.values() for choice in some]
    return {emit.table_name(plan.kernels): plan.tiling for plan in plans if plan.tiling is not None}


def import_modules(export: Export) -> dict[str, Graph]:
    """Import each distinct function once, with the input types of its first call."""
    hidden_size = int(export.settings["config"]["hidden_size"])
    graphs: dict[str, Graph] = {}
    for call in export.calls:
        if call.function in graphs:
            continue
        types: dict[str, tuple[int, Sequence[Dimension]]] = {
            name: (1, ["M", hidden_size]) if name == "hidden" else export.typed(actual)
            for name, actual in call.inputs.items()
        }
        graphs[call.function] = import_function(export.functions[call.function], types, frozenset(COMPOSITES))
    return graphs


def pack_modules(
    export: Export, graphs: Mapping[str, Graph], choices: Mapping[str, list[Choice]], path: Path
) -> tuple[list[emit.Module], int]:
    """Write weights.bin in the order in which a token reads it; return the modules with their offsets."""
    file = pack.WeightsFile(path)
    offsets: dict[str, list[list[int]]] = {name: [] for name in graphs}
    layers: dict[str, list[int]] = {name: [] for name in graphs}
    for call in export.calls:
        for name in FORMS if call.function == HEAD else (call.function,):
            offsets[name].append(_place_weights(export, call, choices[name], file))
            layers[name].append(call.layer)
    modules = [
        _module(name, graph, choices[name], offsets[name], layers[name], file.sizes)
        for name, graph in graphs.items()
    ]
    file.close()
    return modules, file.bytes


def _place_weights(
    export: Export, call: ModuleCall, choices: list[Choice], file: pack.WeightsFile
) -> list[int]:
    def load(name: str) -> Any:
        return export.load(call.inputs[name])

    packings = [packing for choice in choices for packing in choice.plan.weights]
    placed = []
    for packing in packings:
        actual = tuple(None if part is None else call.inputs[part] for part in packing.parts)
        key = (
            packing.layout,
            packing.block_layout,
            packing.scheme,
            packing.interleave,
            packing.columns,
            actual,
        )
        placed.append(file.place(key, partial(packing.pack, load)))
    return placed


def _module(
    name: str,
    graph: Graph,
    choices: list[Choice],
    offsets: list[list[int]],
    layers: list[int],
    sizes: Mapping[int, int],
) -> emit.Module:
    roles: dict[Value, str] = {}
    hidden = graph.input("hidden")
    for value in graph.inputs:
        if value.name in ("hidden", "features"):
            roles[value] = f"call->{value.name}"
    roles[graph.outputs[0]] = HEAD_RESULTS.get(name, "call->hidden")
    if name not in FORMS and hidden is not None:
        last = graph.producer(graph.outputs[0])
        if last is None or last.op != "linear" or not last.detail.add:
            raise CompileError(f"{name}: the result must be the residual stream plus a projection")
    name_values(graph, roles)
    in_arena = {
        value: bool(getattr(node.detail, "quantized", False))
        for node in graph.nodes
        for value in node.outputs
        if value not in roles
    }
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    arena = memory.plan_arena(graph, in_arena, MAX_ROWS)
    weight_bytes = [sizes[offset] for offset in offsets[0]]
    return emit.Module(snake, graph, choices, arena, roles, offsets, layers, weight_bytes)


# Where the forms of the head write.
HEAD_RESULTS = {"Head": "call->logits", "HeadMaxima": "call->maxima", "HeadBlocks": "call->block_logits"}

# What the results of operations are called in program.c.
_RESULTS = {
    "norm": "normed",
    "quantize": "quantized",
    "linear": "projected",
    "linear_swiglu": "gated",
    "swiglu": "gated",
    "rope_store": "queries",
    "cached_attention": "attended",
}


def name_values(graph: Graph, roles: Mapping[Value, str]) -> None:
    """Call values after what made them, numbered where there are several of a kind."""
    seen: dict[str, int] = {}
    for value in dict.fromkeys(value for node in graph.nodes for value in node.outputs if value not in roles):
        maker = graph.producer(value)
        assert maker is not None
        stem = _RESULTS.get(maker.op, "value")
        seen[stem] = seen.get(stem, 0) + 1
        value.name = stem if seen[stem] == 1 else f"{stem}{seen[stem]}"


def assemble(
    export: Export, settings: Settings, kv: str, modules: list[emit.Module], weights_bytes: int
) -> Decoder:
    """Put the modules together with the sizes that the runtime asks for."""
    config = export.settings["config"]
    shape = AttentionShape(config["heads"], config["kv_heads"], config["head_dim"], 1.0, settings.kv_dtype)
    element = KV_DTYPES[kv][1]
    named = {module.name: module for module in modules}

    def of_kind(kind: str) -> list[emit.Module]:
        return [module for module in modules if module.name.startswith(kind)]

    return Decoder(
        target=settings.target.name,
        embed=named.get("embed"),
        attention=of_kind("attention"),
        feed_forward=of_kind("feed_forward"),
        head=named["head"],
        head_maxima=named["head_maxima"],
        head_blocks=named["head_blocks"],
        layers=config["layers"],
        hidden_size=config["hidden_size"],
        vocabulary_size=config["vocabulary_size"],
        feature_size=export.feature_size,
        context_length=config["context_length"],
        kv_heads=config["kv_heads"],
        head_dim=config["head_dim"],
        max_rows=MAX_ROWS,
        max_gather=settings.max_gather,
        kv_element_bytes=element,
        space=attention_space(shape, element, config["context_length"]),
        weights_bytes=weights_bytes,
    )


def build_library(decoder: Decoder, target: Target, folder: Path) -> str:
    """Write src/program.c, build the kernels and link both; return the library's path within the bundle."""
    source = folder / "src" / "program.c"
    write_header(folder / "src")
    source.write_text(program_source(decoder), encoding="utf-8")
    (folder / "lib").mkdir()
    library = f"lib/{target.name}.so"
    objects = folder / "kernels.o"
    write_object(decoder.kernels.values(), target, objects)
    link([source, objects], folder / "src", folder / library)
    objects.unlink()
    return library


def write_header(include: Path) -> None:
    """Write forerun/program.h, which travels with the runtime, under an include folder."""
    for place in forerun.__path__:
        path = Path(place) / "runtime" / "native" / "include" / "forerun" / "program.h"
        if path.is_file():
            (include / "forerun").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, include / "forerun" / "program.h")
            return
    raise CompileError("forerun/program.h is missing from the installation; install forerun again")


def explain(graphs: Mapping[str, Graph], choices: Mapping[str, list[Choice]]) -> list[str]:
    """Return a line for every operation: the rule that took it, and who declined and why."""
    lines = []
    for name, graph in graphs.items():
        for node, choice in zip(graph.nodes, choices[name], strict=True):
            kernel = emit.kernel_name(choice.plan.kernels)
            declined = "; ".join(f"{rule} declined: {reason}" for rule, reason in choice.declined)
            lines.append(
                f"{name}: {node.op} → {choice.rule} ({kernel})" + (f"; {declined}" if declined else "")
            )
    return lines
