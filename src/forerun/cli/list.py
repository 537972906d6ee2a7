"""`forerun list`: everything that can be named on a command line."""

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from forerun.cli.tables import make_table, print_table
from forerun.errors import ForerunError
from forerun.registry import options_of

if TYPE_CHECKING:
    from forerun.targets import Target

NAME = "list"
HELP = "list drafters, shapes, acceptance rules, exit policies, schemes, targets, platforms and models"
EXAMPLES = ("forerun list", "forerun list drafters")

# Rows of one kind: name, options, one line of description.
Rows = list[tuple[str, str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("kind", nargs="?", choices=tuple(KINDS), metavar="KIND", help=", ".join(KINDS))


def execute(arguments: argparse.Namespace) -> int:
    """Print one table for each kind; kinds that need the compile side are named when it is missing."""
    for kind in (arguments.kind,) if arguments.kind else KINDS:
        try:
            rows = KINDS[kind]()
        except ModuleNotFoundError as error:
            print(
                f"{kind}: needs the package {error.name!r}; run: pip install forerun[compile]",
                file=sys.stderr,
            )
            continue
        print_table(make_table((kind, SECOND_COLUMNS.get(kind, "options"), ""), rows, text_columns=3))
        print()
    return 0


def registry_rows(registry: Mapping[str, type]) -> Rows:
    """The entries of a registry of classes."""
    return [
        (name, ", ".join(option.describe() for option in options_of(entry)) or "–", summary_of(entry))
        for name, entry in registry.items()
    ]


def summary_of(entry: object) -> str:
    """An entry's `summary`, or else the first line of its docstring."""
    return str(getattr(entry, "summary", None) or (entry.__doc__ or "").strip().partition("\n")[0])


def drafters() -> Rows:
    """What proposes tokens."""
    from forerun.runtime.drafters import DRAFTERS

    return registry_rows(DRAFTERS)


def shapes() -> Rows:
    """How drafts branch."""
    from forerun.runtime.shapes import SHAPES

    return registry_rows(SHAPES)


def acceptance() -> Rows:
    """Which drafted tokens are kept."""
    from forerun.runtime.acceptance import ACCEPTANCE

    return registry_rows(ACCEPTANCE)


def exits() -> Rows:
    """Which rows leave the layers early."""
    from forerun.runtime.exits import EXITS

    return registry_rows(EXITS)


def schemes() -> Rows:
    """How weights are stored."""
    from forerun.export.schemes import SCHEMES

    return [(name, "–", summary_of(entry)) for name, entry in SCHEMES.items()]


def targets() -> Rows:
    """What to compile for, and whether this machine runs it."""
    import platform
    from importlib.util import find_spec

    from forerun.targets import ONNXRUNTIME, TARGETS, GpuTarget
    from forerun.targets.detect import cpu_features, why_not

    features, machine = cpu_features(), platform.machine()

    def told(target: "Target") -> str:
        if (reason := why_not(target, features, machine)) is not None:
            return reason
        return device_here(target.device) if isinstance(target, GpuTarget) else "runs here"

    rows = [(name, told(target), target.summary) for name, target in TARGETS.items()]
    is_installed = find_spec(ONNXRUNTIME.package) is not None
    here = "runs here" if is_installed else f"pip install forerun[{ONNXRUNTIME.extra}]"
    return [*rows, (ONNXRUNTIME.name, here, ONNXRUNTIME.summary)]


def device_here(interface: str) -> str:
    """The device that bundles for an interface would run on, or why there is none."""
    from forerun.runtime.devices import find_device

    try:
        return f"runs on {find_device(interface)}"
    except ForerunError as error:
        return str(error)


def platforms() -> Rows:
    """Systems to package bundles for."""
    from forerun.targets import ALL_PLATFORMS, ALL_TARGETS

    named = {
        one.name: [target.name for target in ALL_TARGETS if target.platform == one.programs]
        for one in ALL_PLATFORMS
    }
    return [(one.name, ", ".join(named[one.name]), one.summary) for one in ALL_PLATFORMS]


def models() -> Rows:
    """Models that can be exported, by the names that files give them, and what was proven of each."""
    from forerun.models.evidence import EVIDENCE

    return [
        (each.name, f"{each.huggingface_type}; GGUF: {each.gguf_architecture}", each.described())
        for each in EVIDENCE
    ]


SECOND_COLUMNS = {"targets": "here", "platforms": "targets", "models": "model type"}

KINDS: dict[str, Callable[[], Rows]] = {
    "drafters": drafters,
    "shapes": shapes,
    "acceptance": acceptance,
    "exits": exits,
    "schemes": schemes,
    "targets": targets,
    "platforms": platforms,
    "models": models,
}
