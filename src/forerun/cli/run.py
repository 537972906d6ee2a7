"""`forerun run`: one prompt, one answer."""

import argparse
import json
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from forerun.cli.interrupt import cancel_on_interrupt
from forerun.cli.options import (
    add_bundle,
    add_generation,
    check_generation,
    generation_options,
    open_model,
    read_text,
)
from forerun.cli.progress import Report, progress_bar
from forerun.cli.rows import ROWS_DEPEND, TREES_DEPEND
from forerun.cli.tables import print_stats
from forerun.errors import OptionError

if TYPE_CHECKING:
    from forerun.runtime.generation import Generation
    from forerun.runtime.model import Model

NAME = "run"
HELP = "answer one prompt, streaming the text"
EXAMPLES = (
    'forerun run build/demo/smollm2 -p "What is a heron?"',
    'forerun run BUNDLE -p "Repeat: a b c" --drafter lookup:tokens=6,branches=2 --stats',
    'forerun run BUNDLE -p "Once upon a time" --raw --temperature 0.8 --top-p 0.95 --seed 7',
    "forerun run BUNDLE -f question.txt --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_bundle(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt (default: read from stdin)")
    source.add_argument("-f", "--file", type=Path, metavar="FILE", help="read the prompt from a UTF-8 file")
    parser.add_argument("--system", metavar="TEXT", help="system message before the prompt")
    parser.add_argument(
        "--raw", action="store_true", help="continue the prompt as it is, without the chat template"
    )
    parser.add_argument("--stats", action="store_true", help="print statistics to stderr at the end")
    parser.add_argument(
        "--json", action="store_true", help='print one object {"ids", "text", "stats", …} instead'
    )
    add_generation(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Answer the prompt; 130 when interrupted, with the text so far kept."""
    check_generation(arguments)
    if arguments.raw and arguments.system is not None:
        raise OptionError("--system needs the chat template; leave out --raw or the system message")
    prompt = read_prompt(arguments)
    with open_model(arguments) as model:
        with progress_bar("reading the prompt") as report:
            generation = start(model, prompt, arguments, report)
            with cancel_on_interrupt(generation):
                first = next(generation, "")
        with generation, cancel_on_interrupt(generation):
            stream(first, generation, quiet=arguments.json)
        if arguments.json:
            print(json.dumps(as_json(generation), ensure_ascii=False))
        if arguments.stats:
            print_stats(generation.stats, generation.finish_reason)
            print_rule(generation)
        return 130 if generation.finish_reason == "cancelled" else 0


def read_prompt(arguments: argparse.Namespace) -> str:
    """The prompt from -p, -f or stdin."""
    if arguments.prompt is not None:
        return str(arguments.prompt)
    if arguments.file is not None:
        return read_text(arguments.file, "prompt file")
    if sys.stdin.isatty():
        raise OptionError("there is no prompt; give one with -p TEXT or -f FILE, or pipe it in")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(
            f"the prompt on stdin is not UTF-8: {error.reason} at byte {error.start}"
        ) from error


def start(model: "Model", prompt: str, arguments: argparse.Namespace, report: Report) -> "Generation":
    """Start the answer, with a system message if one is given."""
    options = generation_options(arguments)
    options["on_prefill"] = lambda done, total: report(f"{done} of {total} tokens", done / total)
    if arguments.system is not None:
        messages = [{"role": "system", "content": arguments.system}, {"role": "user", "content": prompt}]
        return model.generate(messages, **options)
    return model.generate(prompt, raw=arguments.raw, **options)


def stream(first: str, generation: "Generation", quiet: bool) -> None:
    """Print the text as it comes, and say on stderr if it ended for want of room."""
    if quiet:
        generation.complete()
        return
    for piece in chain([first], generation):
        print(piece, end="", flush=True)
    print()
    if generation.finish_reason == "context_full":
        print("note: the context is full; --context N makes room for more", file=sys.stderr)


def print_rule(generation: "Generation") -> None:
    """Say on stderr if a draft may have changed a token."""
    abilities = generation.session.abilities
    if generation.stats.drafted and not abilities.bit_exact:
        print(ROWS_DEPEND, file=sys.stderr)
    elif generation.stats.drafted and abilities.trees and not abilities.exact_trees:
        print(TREES_DEPEND, file=sys.stderr)


def as_json(generation: "Generation") -> dict[str, object]:
    """The object that --json prints."""
    return {
        "ids": generation.ids,
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "stats": generation.stats.to_dict(),
    }
