"""`forerun chat`: a conversation in the terminal."""

import argparse
import sys
from typing import TYPE_CHECKING

from forerun.cli.interrupt import cancel_on_interrupt
from forerun.cli.options import add_bundle, add_generation, check_generation, generation_options, open_model
from forerun.cli.tables import print_stats
from forerun.errors import ContextFullError

if TYPE_CHECKING:
    from forerun.runtime.model import Model

NAME = "chat"
HELP = "talk to a model; /reset starts over, /exit leaves, Ctrl-C stops an answer"
EXAMPLES = (
    "forerun chat build/demo/smollm2",
    'forerun chat BUNDLE --system "Answer in one sentence." --drafter lookup --stats',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_bundle(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message at the start of the conversation")
    parser.add_argument("--stats", action="store_true", help="print statistics to stderr after each answer")
    add_generation(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Read lines until /exit or the end of the input."""
    check_generation(arguments)
    with open_model(arguments) as model:
        start = [{"role": "system", "content": arguments.system}] if arguments.system is not None else []
        messages = list(start)
        while (line := read_line()) is not None and line != "/exit":
            if line == "/reset":
                messages = list(start)
                print("(the conversation starts over)", file=sys.stderr)
            elif line:
                messages = answer(model, [*messages, {"role": "user", "content": line}], arguments)
    return 0


def read_line() -> str | None:
    """The next line, stripped; None at the end of the input. Ctrl-C clears the line."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            print("\n(/exit leaves)", file=sys.stderr)


def answer(
    model: "Model", messages: list[dict[str, str]], arguments: argparse.Namespace
) -> list[dict[str, str]]:
    """Stream one answer and return the conversation with it; what Ctrl-C cut off stays as far as it got."""
    try:
        generation = model.generate(messages, **generation_options(arguments))
    except ContextFullError as error:
        print(f"error: {error}; /reset starts over", file=sys.stderr)
        return messages[:-1]
    with generation, cancel_on_interrupt(generation):
        for piece in generation:
            print(piece, end="", flush=True)
    print()
    if generation.finish_reason in ("cancelled", "context_full"):
        print(f"({generation.finish_reason.replace('_', ' ')})", file=sys.stderr)
    if arguments.stats:
        print_stats(generation.stats, generation.finish_reason)
    return [*messages, {"role": "assistant", "content": generation.text}]
