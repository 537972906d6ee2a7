"""`forerun info`: what is in a bundle."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forerun.cli.tables import make_table, print_table
from forerun.errors import BundleError, OptionError, TargetError

if TYPE_CHECKING:
    from forerun.runtime.bundle import Bundle, DraftInfo

NAME = "info"
HELP = "show a bundle's model, files and targets, check its hashes, and say whether this machine can run it"
EXAMPLES = ("forerun info build/demo/smollm2", "forerun info BUNDLE --json")


@dataclass(frozen=True)
class TargetState:
    """One target of a bundle; `obstacle` says why this machine cannot run it, None if it can, `note` how it runs.

    `cache_bytes` is the memory for the keys and values of one sequence of the whole context, None where not known.
    """

    name: str
    features: tuple[str, ...]
    obstacle: str | None
    note: str = ""
    cache_bytes: int | None = None


@dataclass(frozen=True)
class DraftState:
    """One draft of a bundle; `obstacle` says why it cannot be used here, None if it can."""

    name: str
    component: str
    taps: tuple[int, ...]
    vocabulary_size: int
    bytes: int
    obstacle: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="bundle folder written by forerun compile"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def execute(arguments: argparse.Namespace) -> int:
    """Print what the manifest says; a bundle for other machines is no error, a damaged one is."""
    from forerun.runtime.bundle import read_bundle

    bundle = read_bundle(arguments.bundle)
    states = [try_target(bundle, target.name, target.features) for target in bundle.targets]
    drafts = [try_draft(draft) for draft in bundle.drafts.values()]
    if arguments.json:
        print(json.dumps(as_json(bundle, states, drafts), ensure_ascii=False, indent=1))
        return 0
    print_bundle(bundle, states, drafts)
    return 0


def try_target(bundle: "Bundle", name: str, features: tuple[str, ...]) -> TargetState:
    """Open the bundle for one target, which checks every file; raises `BundleError` for a damaged one."""
    from forerun.runtime.session import LoadedProgram

    if bundle.onnx_model:
        return try_onnx(bundle, name)
    try:
        with LoadedProgram(bundle.path, name) as program:
            size = program.cache_bytes()
            note = f"keys and values of a full context take {size / 2**20:.1f} MiB"
            if program.device:
                note = f"{program.device}; {note}"
            return TargetState(name, features, None, note, size)
    except TargetError as error:
        return TargetState(name, features, str(error))


def try_onnx(bundle: "Bundle", name: str) -> TargetState:
    """Open the bundle's ONNX file in ONNX Runtime, and say on what it runs and whether drafts can change a token."""
    from forerun.cli.rows import describe_rule
    from forerun.machine import physical_cores
    from forerun.runtime.onnx.program import OnnxProgram

    try:
        program = OnnxProgram(bundle, name)
        engine = program.open_engine(physical_cores())
    except (OptionError, TargetError) as error:
        return TargetState(name, (), str(error))
    rule = describe_rule(program.find_rule(engine, physical_cores()), engine.signature.trees)
    return TargetState(name, (), None, f"ONNX Runtime {engine.version}, {engine.provider}; {rule}")


def try_draft(draft: "DraftInfo") -> DraftState:
    """Open a draft's own folder, which checks every file; a damaged one spoils nothing but the draft."""
    from forerun.runtime.bundle import read_bundle
    from forerun.runtime.session import LoadedProgram

    try:
        size = sum(read_bundle(draft.path).files.values())
        LoadedProgram(draft.path).close()
    except (BundleError, TargetError) as error:
        return DraftState(draft.name, draft.component, draft.taps, draft.vocabulary_size, 0, str(error))
    return DraftState(draft.name, draft.component, draft.taps, draft.vocabulary_size, size, None)


def as_json(bundle: "Bundle", states: list[TargetState], drafts: list[DraftState]) -> dict[str, object]:
    """The same facts for programs."""
    return {
        "name": bundle.name,
        "family": bundle.family,
        "quant": bundle.quant,
        "config": dict(bundle.config),
        "files": dict(bundle.files),
        "targets": [
            {
                "name": state.name,
                "runs_here": state.obstacle is None,
                "obstacle": state.obstacle,
                "note": state.note,
                "cache_bytes": state.cache_bytes,
            }
            for state in states
        ],
        "drafts": [asdict(draft) for draft in drafts],
        "chat_template": bundle.chat_template_path is not None,
        "source": bundle.source,
        "forerun": bundle.forerun,
    }


def print_bundle(bundle: "Bundle", states: list[TargetState], drafts: list[DraftState]) -> None:
    """Tables for people: the model, its files, its drafts, its targets."""
    rows = [
        ("model", f"{bundle.name} ({bundle.family}, {bundle.quant})"),
        *((key.replace("_", " "), str(value)) for key, value in bundle.config.items()),
        ("chat template", "yes" if bundle.chat_template_path is not None else "no"),
        ("source", bundle.source),
        ("written by", f"forerun {bundle.forerun}"),
    ]
    print_table(make_table((str(bundle.path), ""), rows, text_columns=2))
    print_table(make_table(("file", "bytes"), [(name, f"{size:,}") for name, size in bundle.files.items()]))
    if drafts:
        columns = ("draft", "component", "taps", "here", "vocabulary", "bytes")
        cells = [
            (
                *(
                    draft.name,
                    draft.component,
                    ", ".join(map(str, draft.taps)),
                    draft.obstacle or "runs here",
                ),
                *(f"{draft.vocabulary_size:,}", f"{draft.bytes:,}"),
            )
            for draft in drafts
        ]
        print_table(make_table(columns, cells, text_columns=4))
    targets = [
        (state.name, state.obstacle or "runs here", ", ".join(state.features) or "none") for state in states
    ]
    print_table(make_table(("target", "here", "features it needs"), targets, text_columns=3))
    for state in states:
        if state.note:
            print(f"{state.name}: {state.note}")
