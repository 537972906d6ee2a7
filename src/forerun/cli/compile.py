"""`forerun compile`: an export → a bundle."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from forerun.cli.options import import_compile_side
from forerun.cli.progress import progress_bar

if TYPE_CHECKING:
    from forerun.compiler import CompileReport

NAME = "compile"
HELP = "compile an exported model into a bundle for one target"
EXAMPLES = (
    "forerun compile build/export -o build/bundle",
    "forerun compile build/export -o build/bundle --target x86-64-v3 --explain",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder written by forerun export")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="BUNDLE", help="bundle folder to write"
    )
    parser.add_argument("--target", metavar="TARGET", help="see forerun list (default: this machine's best)")
    parser.add_argument("--kv", choices=("f16", "f32"), default="f16", help="KV cache elements (default f16)")
    parser.add_argument(
        "--explain", action="store_true", help="print which rule took which operation, and why not"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Compile; the bundle appears only when it is whole."""
    compile_export = import_compile_side(_import_compiler, NAME)
    with progress_bar("compiling") as report:
        result = compile_export(
            arguments.directory, arguments.output, arguments.target, kv=arguments.kv, progress=report
        )
    if arguments.explain:
        print("\n".join(result.explanation))
    print_report(result)
    return 0


def _import_compiler() -> object:
    from forerun.compiler import compile_export

    return compile_export


def print_report(report: "CompileReport") -> None:
    """What was compiled, in two lines."""
    modules = ", ".join(report.modules)
    print(f"{report.target}: {report.kernels} kernels for the modules {modules}; {report.seconds:.1f} s")
    sizes = f"weights {report.weights_bytes / 2**20:.1f} MiB, library {report.library_bytes / 2**10:.0f} KiB"
    print(f"wrote {report.bundle} ({sizes})")
