"""From an export directory to a bundle. Read `compile_export` top to bottom: each line is a stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from forerun.compiler import bundle, emit, export_reader, memory, pack
from forerun.compiler.build import build_program, identifier
from forerun.compiler.converters import COMPOSITES
from forerun.compiler.drafts import draft_path, listing, open_drafts
from forerun.compiler.export_reader import Export, ModuleCall
from forerun.compiler.from_onnx import import_function
from forerun.compiler.fuse import fuse
from forerun.compiler.fuse.head import FORMS, HEAD, head_forms
from forerun.compiler.graph import Dimension, Graph, Value
from forerun.compiler.program import Decoder
from forerun.compiler.report import CompileReport, explain, matmul_tilings
from forerun.compiler.schedules import Choice, schedule
from forerun.compiler.schedules.attention import attention_space
from forerun.compiler.schedules.plan import Settings
from forerun.compiler.schedules.rope import AttentionShape, ring_positions
from forerun.compiler.schedules.tiling import Tiling
from forerun.compiler.text import write_text
from forerun.errors import CompileError, OptionError
from forerun.staging import staged_folder
from forerun.targets import TARGETS, find_target

MAX_ROWS = 256  # rows one call may carry: the prefill block
KV_DTYPES: Mapping[str, tuple[str, int]] = {"f16": ("float16", 2), "f32": ("float32", 4)}

Progress = Callable[[str, float], None]


def compile_export(
    directory: Path,
    output: Path,
    target: str | None = None,
    *,
    also: Sequence[str] = (),
    kv: str = "f16",
    tuned: Mapping[str, Tiling] = MappingProxyType({}),
    drafts: Mapping[str, Path] = MappingProxyType({}),
    progress: Progress | None = None,
) -> CompileReport:
    """Compile an export, of a model or of a draft component, and write the bundle.

    Args:
        directory: what `forerun export` wrote.
        output: the bundle folder; written aside and renamed, an existing bundle is replaced.
        target: a target's name, None for this machine's best.
        also: further targets for the same bundle; they share its weights, so they have to store them alike.
        kv: element of the KV cache, `f16` or `f32`.
        tuned: numbers for matmuls of `target` by the name of their kernels, from `forerun tune`; the target's own for
            all others.
        drafts: exports of draft components of this model, by the names they get in the bundle.
        progress: called with a stage's name and the part of the whole done, 0…1.

    Raises:
        CompileError, TargetError, OptionError, OutputError.
    """
    tell = progress or (lambda stage, done: None)
    settings = choose_settings(target, also, kv, tuned)
    with staged_folder(output, bundle.MANIFEST, "forerun compile") as folder:
        tell("reading", 0.0)
        export = export_reader.open_export(Path(directory))
        components = open_drafts(drafts, export.settings)
        parts, reports = len(components) + 1, {}
        for i, (name, draft) in enumerate(components.items()):
            place = folder / draft_path(name)
            place.mkdir(parents=True)
            reports[name] = _write_bundle(
                draft, place, settings, kv, _part(tell, f"{name}: ", i, parts), draft=name
            )
        listed = {"drafts": listing(components)} if components else {}
        report = _write_bundle(export, folder, settings, kv, _part(tell, "", parts - 1, parts), listed=listed)
    tell("done", 1.0)
    return replace(report, bundle=Path(output), drafts=reports)


def _part(tell: Progress, prefix: str, index: int, count: int) -> Progress:
    """Tell of part number `index` of `count` equal ones."""
    return lambda stage, done: tell(prefix + stage, (index + done) / count)


def choose_settings(
    target: str | None, also: Sequence[str], kv: str, tuned: Mapping[str, Tiling]
) -> list[Settings]:
    """Return the settings of all targets, best first: that is the order in which the runtime tries them.

    Raises:
        TargetError: an unknown target.
        OptionError: an unknown KV element, or targets that cannot share weights.
    """
    if kv not in KV_DTYPES:
        raise OptionError(f"unknown KV element {kv!r}; allowed: {', '.join(KV_DTYPES)}")
    first = find_target(target)
    wanted = {first.name, *(find_target(name).name for name in also)}
    chosen = [one for one in TARGETS.values() if one.name in wanted]
    layouts = {one.weight_layout for one in chosen}
    if len(layouts) > 1:
        stored = ", ".join(f"{one.name}: {one.weight_layout}" for one in chosen)
        raise OptionError(
            f"one bundle cannot hold targets that store weights differently ({stored}); make several"
        )
    return [
        Settings(one, KV_DTYPES[kv][0], MAX_ROWS, tuned if one == first else MappingProxyType({}))
        for one in chosen
    ]


def _write_bundle(
    export: Export,
    folder: Path,
    settings: Sequence[Settings],
    kv: str,
    tell: Progress,
    *,
    draft: str = "",
    listed: Mapping[str, Any] = MappingProxyType({}),
) -> CompileReport:
    """Compile one network into a folder; `draft` is its name among drafts, `listed` further members of its manifest."""
    started = time.perf_counter()
    tell("importing", 0.05)
    graphs = fused_modules(export)
    tell("scheduling", 0.3)
    choices = [
        {name: [schedule(name, n, one) for n in graph.nodes] for name, graph in graphs.items()}
        for one in settings
    ]
    tell("packing weights", 0.4)
    file = pack.WeightsFile(folder / "weights.bin")
    modules = [pack_modules(export, graphs, of_target, file) for of_target in choices]
    file.close()
    tell("building kernels", 0.6)
    decoders = [
        assemble(
            export, one, kv, parts, file.bytes, identifier(export.settings["name"], draft, one.target.name)
        )
        for one, parts in zip(settings, modules, strict=True)
    ]
    built = [
        build_program(decoder, one.target, folder, f"{one.target.name}.c" if i else "program.c")
        for i, (one, decoder) in enumerate(zip(settings, decoders, strict=True))
    ]
    tell("writing the bundle", 0.95)
    bundle.copy_files(export.directory, folder)
    text = write_text(folder, export.settings)
    # Told are the numbers of the target that some were found for; a device comes after the CPU.
    told = next((i for i, one in enumerate(settings) if one.tuned), 0)
    tilings, tuned = matmul_tilings(choices[told]), settings[told].tuned
    described = {name: {**t.described(), "tuned": kept in tuned} for name, (t, kept) in tilings.items()}
    extra = {**listed, "no_text": text.refusal} if text.refusal else listed
    bundle.write_manifest(folder, export.settings, built, kv=kv, kernels=described, **extra)
    return CompileReport(
        folder,
        tuple(one.target.name for one in settings),
        tuple(name for name in graphs if name not in FORMS or name == HEAD),
        len(decoders[0].kernels),
        file.bytes,
        sum(path.stat().st_size for path in (folder / "lib").glob("*.so")),
        time.perf_counter() - started,
        (*explain(graphs, choices[0]), *text.lines()),
        tuple(name for name, (_, kept) in tilings.items() if kept in tuned),
        notes=tuple(text.lines()),
    )


def fused_modules(export: Export) -> dict[str, Graph]:
    """Return each distinct function as a graph of fused operations, and the further forms of the head."""
    graphs = import_modules(export)
    for graph in graphs.values():
        fuse(graph)
    return graphs | head_forms(graphs[HEAD])


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
        graph = import_function(export.functions[call.function], types, frozenset(COMPOSITES))
        graph.window = int(export.settings["config"].get("window") or 0)
        graphs[call.function] = graph
    return graphs


def pack_modules(
    export: Export, graphs: Mapping[str, Graph], choices: Mapping[str, list[Choice]], file: pack.WeightsFile
) -> list[emit.Module]:
    """Add weights to the file in the order in which a token reads them; return the modules with their offsets."""
    offsets: dict[str, list[list[int]]] = {name: [] for name in graphs}
    layers: dict[str, list[int]] = {name: [] for name in graphs}
    for call in export.calls:
        for name in FORMS if call.function == HEAD else (call.function,):
            offsets[name].append(_place_weights(export, call, choices[name], file))
            layers[name].append(call.layer)
    return [
        _module(name, graph, choices[name], offsets[name], layers[name], file.sizes)
        for name, graph in graphs.items()
    ]


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
        if last is None or last.op not in ("linear", "norm") or not last.detail.add:
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


def _windows(config: Mapping[str, Any], rows: int) -> list[tuple[int, int]]:
    """Return window and ring of each layer, zeros where it has none."""
    window, layers = int(config.get("window") or 0), config.get("windowed_layers", ())
    ring = ring_positions(window, rows)
    return [(window, ring) if layer in layers else (0, 0) for layer in range(config["layers"])]


def assemble(
    export: Export,
    settings: Settings,
    kv: str,
    modules: list[emit.Module],
    weights_bytes: int,
    name: str,
) -> Decoder:
    """Put the modules together with the sizes that the runtime asks for; `name` tells its symbols from others'."""
    config = export.settings["config"]
    shape = AttentionShape(config["heads"], config["kv_heads"], config["head_dim"], 1.0, settings.kv_dtype)
    element = KV_DTYPES[kv][1]
    named = {module.name: module for module in modules}

    def of_kind(kind: str) -> list[emit.Module]:
        return [module for module in modules if module.name.startswith(kind)]

    return Decoder(
        name=name,
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
        heads=config["heads"],
        kv_heads=config["kv_heads"],
        head_dim=config["head_dim"],
        kv_dtype=settings.kv_dtype,
        windows=_windows(config, settings.max_gather),
        max_rows=MAX_ROWS,
        max_gather=settings.max_gather,
        kv_element_bytes=element,
        space=attention_space(shape, element, config["context_length"]),
        weights_bytes=weights_bytes,
    )
