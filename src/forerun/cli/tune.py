"""`forerun tune`: the numbers with which an export's matmuls run fastest on this machine, or on its device."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from forerun.cli.options import add_tuning, choose_device, import_compile_side
from forerun.cli.progress import progress_bar
from forerun.cli.tables import make_table, print_table
from forerun.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forerun.compiler.schedules.plan import Settings
    from forerun.compiler.schedules.tiling import Tiling
    from forerun.compiler.tune import DeviceSearch, Found, Search

NAME = "tune"
HELP = (
    "find the fastest kernel numbers for an export on this machine or its GPU; forerun compile then uses them"
)
EXAMPLES = (
    "forerun tune build/export",
    "forerun tune build/export --target x86-64-v3 --seconds 60 --again",
    "forerun tune build/export --target opencl",
)
DEFAULT_SECONDS = 240.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder written by forerun export")
    parser.add_argument(
        "--target",
        metavar="TARGET",
        help="see forerun list; a device's kernels are measured on the device (default: this machine's best)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        metavar="S",
        help=f"stop after this long and keep what is known by then (default {DEFAULT_SECONDS:.0f})",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="largest team to measure, for targets of the CPU (default: physical cores)",
    )
    parser.add_argument("--again", action="store_true", help="measure matmuls that are known already as well")
    add_tuning(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Search and keep each result as soon as it is known, so that Ctrl-C loses nothing."""
    check_numbers(arguments)
    choose_device(arguments)
    tune = import_compile_side(_import_tune, NAME)
    from forerun.targets import GpuTarget, find_runnable_target

    target = find_runnable_target(arguments.target)
    if isinstance(target, GpuTarget):
        if arguments.threads is not None:
            raise OptionError(f"--threads is for targets of the CPU: leave it out for {target.name}")
        print(f"{target.name}: measured on {tune.measured_on(target)}")
    folder = arguments.tuning or tune.default_folder()
    known = tune.load_tuning(folder, target)
    if known.note:
        print(f"note: {known.note}")
    settings = tune.tuning_settings(target)
    matmuls = tune.find_matmuls(arguments.directory, settings)
    wanted = [one for one in matmuls if arguments.again or one.name not in known.tilings]
    # Written once before anything is measured: a folder that cannot be written is no surprise at the end.
    path = tune.save_tuning(folder, target, known)
    found: list[Found] = []
    with progress_bar("tuning") as report:
        for one in choose_search(settings, arguments, report).run(wanted):
            found.append(one)
            known = known.including(one)
            tune.save_tuning(folder, target, known)
    print_found(found)
    left = len(wanted) - len(found)
    print(f"{target.name}: {len(found)} measured, {len(matmuls) - len(wanted)} known before, {left} left out")
    print(f"kept in {path}")
    return 0


def choose_search(
    settings: "Settings", arguments: argparse.Namespace, report: "Callable[[str, float], None]"
) -> "Search | DeviceSearch":
    """Return the search on the CPU, or on the target's device."""
    from forerun.compiler import tune
    from forerun.machine import physical_cores
    from forerun.targets import GpuTarget

    if isinstance(settings.target, GpuTarget):
        return tune.DeviceSearch(settings, arguments.seconds, report)
    return tune.Search(settings, arguments.threads or physical_cores(), arguments.seconds, report)


def _import_tune() -> object:
    from forerun.compiler import tune

    return tune


def check_numbers(arguments: argparse.Namespace) -> None:
    """Raise `OptionError` for numbers out of range."""
    if not arguments.seconds > 0:
        raise OptionError(f"--seconds is {arguments.seconds}; it must be more than 0")
    if arguments.threads is not None and not 1 <= arguments.threads <= 256:
        raise OptionError(f"--threads is {arguments.threads}; it must be 1 to 256")


def print_found(found: "Sequence[Found]") -> None:
    """A line for each matmul: its numbers, and how much faster it is with them than with the target's."""
    if not found:
        return
    numbers = [describe_numbers(one.tiling) for one in found]
    rows = [
        (one.name, *own.values(), f"{one.speedup():.2f}x") for one, own in zip(found, numbers, strict=True)
    ]
    print_table(make_table(("matmul", *numbers[0], "speed-up"), rows))


def describe_numbers(tiling: "Tiling") -> dict[str, str]:
    """What a table says of a matmul's numbers, by the columns' titles: a device has others than the CPU."""
    tile_rows = {"tile rows": str(tiling.tile_rows)}
    if tiling.threads:
        return {**tile_rows, "blocks": str(tiling.blocks), "threads": str(tiling.threads)}
    return {
        **tile_rows,
        "prefetch": str(tiling.prefetch_bytes),
        "whole groups": ",".join(map(str, tiling.whole_groups)) or "–",
        "matrix rows": str(tiling.matrix_rows or "–"),
    }
