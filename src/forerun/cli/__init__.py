"""The command line: one module per verb, each with `NAME`, `HELP`, `EXAMPLES`, `add_arguments` and `execute`.

Verbs import what they need when they run, so that `forerun run` works where torch, onnx and tvm are not
installed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from forerun import __version__
from forerun.cli import bench, chat, check, compile, export, info, list, package, run, synth, train, tune
from forerun.errors import ForerunError, OptionError

VERBS: tuple[ModuleType, ...] = (
    export,
    tune,
    compile,
    package,
    synth,
    train,
    run,
    chat,
    bench,
    check,
    info,
    list,
)

EXIT_OK, EXIT_CHECK_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `OptionError`s, so that they are reported as all others are."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        raise OptionError(f"{message} (see {self.prog} --help)")


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(
        prog="forerun",
        description="Compile a language model for one device; run it with speculation and early exit.",
        epilog="forerun VERB --help explains a verb and gives examples.",
    )
    parser.add_argument("--version", action="version", version=f"forerun {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for module in VERBS:
        verb = verbs.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb)
        verb.set_defaults(execute=module.execute)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 failed check, 2 user mistake, 130 interrupted."""
    try:
        arguments = build_parser().parse_args(argv)
        code = arguments.execute(arguments)
        sys.stdout.flush()
        return int(code)
    except ForerunError as error:
        print_error(str(error))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print_error("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away (`forerun … | head`): no error, but Python must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def print_error(message: str) -> None:
    """One line on stderr, red where a person reads it."""
    line = "error: " + " ".join(message.split())
    print(f"\033[31m{line}\033[0m" if sys.stderr.isatty() else line, file=sys.stderr)
