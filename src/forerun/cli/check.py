"""`forerun check`: does what was exported or compiled say what the model says?"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from forerun.cli.options import import_compile_side, read_text
from forerun.cli.progress import progress_bar
from forerun.errors import OptionError

if TYPE_CHECKING:
    from forerun.export.check import CheckReport, Quality

NAME = "check"
HELP = "compare an export (in ONNX Runtime) or a bundle with the float model"
EXAMPLES = (
    "forerun check build/export",
    "forerun check build/export --text book.txt --tokens 2048",
    "forerun check build/bundle --text book.txt",
)
# Both sides add the same float32 numbers in different orders; a wrong graph is off by whole units.
DEFAULT_TOLERANCE = 1e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="an export or a bundle")
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="UTF-8 text on which to compare with the float model, too"
    )
    parser.add_argument("--tokens", type=int, default=2048, metavar="N", help="tokens of it (default 2048)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        metavar="X",
        help=f"largest logit error that passes (default {DEFAULT_TOLERANCE})",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Print the largest logit error (exports), mean KL and top-1 agreement; 1 if the error passes the tolerance."""
    if not arguments.tolerance >= 0 or arguments.tokens < 2:
        raise OptionError("--tolerance must be 0 or more and --tokens 2 or more")
    text = None if arguments.text is None else read_text(arguments.text, "text file")
    if (arguments.directory / "manifest.json").exists():
        return check_compiled(arguments.directory, text, arguments.tokens)
    check_export = import_compile_side(_import_check, NAME)
    with progress_bar("checking") as report:
        report(str(arguments.directory), 0.0)
        result = check_export(arguments.directory, text, tokens=arguments.tokens)
    print_report(result)
    # One by one: the largest of several does not notice NaN.
    errors = (result.errors.prefill, result.errors.decode, result.errors.tree)
    passed = all(error <= arguments.tolerance for error in errors)
    print("passed" if passed else f"failed: the largest logit error is above {arguments.tolerance}")
    return 0 if passed else 1


def check_compiled(bundle: Path, text: str | None, tokens: int) -> int:
    """Compare a bundle with the float model on a text: activations, cache and kernels included."""
    if text is None:
        raise OptionError(f"{bundle} is a bundle: give a text to compare on with --text FILE")
    check_bundle = import_compile_side(_import_check_bundle, NAME)
    with progress_bar("checking") as report:
        report(str(bundle), 0.0)
        quality = check_bundle(bundle, text, tokens)
    print_quality(quality)
    return 0


def _import_check_bundle() -> object:
    from forerun.quality import check_bundle

    return check_bundle


def _import_check() -> object:
    from forerun.export.check import check_export

    return check_export


def print_report(report: "CheckReport") -> None:
    """The numbers, one a line."""
    errors = report.errors
    print(f"{report.name}, {report.quant}")
    print(
        f"largest logit error: {errors.largest:.2e}"
        f" (prefill {errors.prefill:.2e}, decode {errors.decode:.2e}, tree {errors.tree:.2e})"
    )
    if report.quality is not None:
        print_quality(report.quality)


def print_quality(quality: "Quality") -> None:
    """Distance from the float model."""
    print(f"from the float model, on {quality.tokens} tokens:")
    print(f"mean KL: {quality.mean_kl:.5f} nats")
    print(f"top-1 agreement: {100 * quality.top1:.2f} %")
