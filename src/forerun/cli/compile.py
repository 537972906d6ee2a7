"""`forerun compile`: an export → a bundle."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from forerun.cli.options import add_tuning, choose_device, import_compile_side
from forerun.cli.progress import progress_bar
from forerun.cli.rows import describe_rule
from forerun.errors import OptionError
from forerun.targets import ONNXRUNTIME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forerun.compiler import CompileReport
    from forerun.compiler.schedules.tiling import Tiling

NAME = "compile"
HELP = "compile an exported model into a bundle for one or several targets, or bundle an ONNX file as it is"
EXAMPLES = (
    "forerun compile build/export -o build/bundle",
    "forerun compile build/export -o build/bundle --target x86-64-v3 --explain",
    "forerun compile build/export -o build/bundle --target arm64 --target arm64-dotprod --target arm64-i8mm",
    "forerun compile build/export -o build/bundle --draft feature=build/draft",
    "forerun compile FOLDER-OF-OPTIMUM -o build/bundle --target onnxruntime",
)
DIRECTORY_HELP = (
    "folder written by forerun export; for the target onnxruntime also one of optimum's (optimum-cli export onnx --task"
    " text-generation-with-past), or an .onnx file in it"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("directory", type=Path, metavar="DIR", help=DIRECTORY_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="BUNDLE", help="bundle folder to write"
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="TARGET",
        help="see forerun list (default: this machine's best); may be repeated, the bundle then holds all of them",
    )
    parser.add_argument("--kv", choices=("f16", "f32"), help="KV cache elements (default f16)")
    parser.add_argument(
        "--draft",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="put the draft component exported to DIR in the bundle under NAME; may be repeated",
    )
    parser.add_argument(
        "--no-tuning",
        action="store_true",
        help="use the target's kernel numbers even where better ones are known",
    )
    add_tuning(parser)
    parser.add_argument(
        "--explain", action="store_true", help="print which rule took which operation, and why not"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Compile; the bundle appears only when it is whole."""
    drafts = parse_drafts(arguments.draft)
    if ONNXRUNTIME.name in arguments.target:
        return bundle_onnx(arguments)
    compile_export = import_compile_side(_import_compiler, NAME)
    tuned = known_tilings(arguments)
    with progress_bar("compiling") as report:
        result = compile_export(
            arguments.directory,
            arguments.output,
            first_target(arguments),
            also=arguments.target[1:],
            kv=arguments.kv or "f16",
            tuned=tuned,
            drafts=drafts,
            progress=report,
        )
    if arguments.explain:
        print("\n".join(result.explanation))
        for name, report in result.drafts.items():
            print("\n".join(f"{name}: {line}" for line in report.explanation))
    print_report(result)
    return 0


def bundle_onnx(arguments: argparse.Namespace) -> int:
    """Bundle an ONNX file as it is, and say how its rows are."""
    given = {
        "another target": len(set(arguments.target)) > 1,
        "--draft": bool(arguments.draft),
        "--kv": arguments.kv is not None,
        "--tuning": arguments.tuning is not None,
        "--device": arguments.device is not None,
        "--explain": arguments.explain,
    }
    for name, is_given in given.items():
        if is_given:
            raise OptionError(
                f"the target {ONNXRUNTIME.name} runs the ONNX file as it is, alone and whole: leave {name} out"
            )
    bundle = import_compile_side(_import_bundler, NAME)
    with progress_bar("bundling") as report:
        result = bundle(arguments.directory, arguments.output, progress=report)
    print(f"{ONNXRUNTIME.name}: signature {result.signature}, {result.provider}")
    print(f"note: {describe_rule(result.rule, result.trees)}")
    print(f"wrote {result.bundle} (ONNX file and data {result.bytes / 2**20:.1f} MiB)")
    return 0


def _import_bundler() -> object:
    from forerun.compiler.onnx_bundle import bundle_onnx

    return bundle_onnx


def parse_drafts(given: list[str]) -> dict[str, Path]:
    """Export folders of draft components by name, from NAME=DIR each; raises `OptionError`."""
    drafts: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise OptionError(f"--draft is {text!r}; it must be NAME=DIR, such as feature=build/draft")
        if name in drafts:
            raise OptionError(f"--draft names {name!r} twice; give every draft a name of its own")
        drafts[name] = Path(folder)
    return drafts


def first_target(arguments: argparse.Namespace) -> str | None:
    """The target that was named first, the one that tuning is for; None for this machine's best."""
    return arguments.target[0] if arguments.target else None


def _import_compiler() -> object:
    from forerun.compiler import compile_export

    return compile_export


def known_tilings(arguments: argparse.Namespace) -> "Mapping[str, Tiling]":
    """What forerun tune found for the target on this machine, or its device, unless that is not wanted."""
    if arguments.no_tuning:
        return {}
    choose_device(arguments)
    from forerun.compiler.tune import default_folder, load_tuning
    from forerun.targets import find_target

    tuning = load_tuning(arguments.tuning or default_folder(), find_target(first_target(arguments)))
    if tuning.note:
        print(f"note: {tuning.note}")
    return tuning.tilings


def print_report(report: "CompileReport") -> None:
    """What was compiled, and with which numbers."""
    modules = ", ".join(report.modules)
    targets = ", ".join(report.targets)
    print(f"{targets}: {report.kernels} kernels for the modules {modules}; {report.seconds:.1f} s")
    sizes = f"weights {report.weights_bytes / 2**20:.1f} MiB, library {report.library_bytes / 2**10:.0f} KiB"
    if report.tuned:
        print(f"tuned on this machine: {', '.join(report.tuned)} (--no-tuning for the target's numbers)")
    for name, draft in report.drafts.items():
        modules = ", ".join(draft.modules)
        print(f"draft {name}: modules {modules}, weights {draft.weights_bytes / 2**20:.1f} MiB")
    for note in report.notes:
        print(f"note: {note}")
    print(f"wrote {report.bundle} ({sizes})")
