"""`forerun package`: a bundle → headers, static libraries and weights for an app."""

import argparse
from pathlib import Path

from forerun.cli.options import import_compile_side
from forerun.cli.progress import progress_bar

NAME = "package"
HELP = "write what an app needs to build a bundle in: headers, static libraries, weights, CMake targets"
EXAMPLES = (
    "forerun package build/bundle --target linux-arm64 -o build/package",
    "forerun package build/bundle --target android-arm64 -o build/package",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="bundle folder written by forerun compile"
    )
    parser.add_argument("--target", required=True, metavar="PLATFORM", help="see forerun list platforms")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--name", metavar="NAME", help="what libraries and tables are called (default: the model's name)"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Package; the folder appears only when it is whole."""
    package_bundle = import_compile_side(_import_packager, NAME)
    with progress_bar("packaging") as report:
        result = package_bundle(
            arguments.bundle, arguments.target, arguments.output, name=arguments.name, progress=report
        )
    print(f"{result.platform}, by {result.toolchain}: programs for {', '.join(result.targets)}")
    for name, size in result.sizes.items():
        print(f"  {name}: {size / 2**10:.0f} KiB")
    print(f"wrote {result.folder} ({result.summary})")
    return 0


def _import_packager() -> object:
    from forerun.compiler.package import package_bundle

    return package_bundle
