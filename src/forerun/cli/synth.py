"""`forerun synth`: training data that the model writes itself."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forerun.cli.options import import_compile_side
from forerun.cli.progress import progress_bar
from forerun.cli.prompts import load_prompts
from forerun.errors import DataError, OptionError

if TYPE_CHECKING:
    from forerun.runtime.model import Model
    from forerun.training.data import DataFolder
    from forerun.training.synth import Recipe

NAME = "synth"
HELP = "let a model write its own training data for draft components, or take prompts and texts of yours"
EXAMPLES = (
    "forerun synth build/bundle -o build/data --tokens 1500000",
    "forerun synth build/bundle -o build/data --minutes 30 --prompts prompts.txt",
)
DEFAULT_TOKENS = 1_500_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder of the model")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DATA",
        help="data folder; one there is gone on with",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help=f"stop at so many tokens in the folder (default {DEFAULT_TOKENS:,})",
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="stop after this long")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="answer these instead of own prompts: one a line, or .jsonl as for forerun bench --prompts",
    )
    parser.add_argument(
        "--text", type=Path, nargs="+", default=[], metavar="FILE", help="add texts to learn from as they are"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of all draws (default 0)")
    parser.add_argument(
        "--answer-tokens", type=int, default=256, metavar="N", help="cut answers here (default 256)"
    )
    parser.add_argument(
        "--sequences", type=int, default=32, metavar="N", help="conversations written together (default 32)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: physical cores)")


def execute(arguments: argparse.Namespace) -> int:
    """Write until the budget is spent; Ctrl-C keeps all but the last few seconds' work."""
    check_numbers(arguments)
    synth: Any = import_compile_side(_import_training, NAME)
    import forerun
    from forerun.runtime.bundle import read_bundle

    recipe = synth.Recipe(
        seed=arguments.seed,
        answer_tokens=arguments.answer_tokens,
        prompts="self" if arguments.prompts is None else file_digest(arguments.prompts),
    )
    longest = int(read_bundle(arguments.bundle).config["context_length"])
    context = min(recipe.prompt_tokens + recipe.answer_tokens + 512, longest)
    with (
        synth.locked(arguments.output),
        forerun.load(
            arguments.bundle, threads=arguments.threads, sequences=arguments.sequences, context=context
        ) as model,
    ):
        folder = open_folder(arguments, model, recipe)
        if arguments.text:
            synth.add_texts(
                folder, [model.language.tokenizer.encode(read_text(path)) for path in arguments.text]
            )
        else:
            write(arguments, model, folder, recipe, synth)
    print_folder(folder)
    return 0


def write(
    arguments: argparse.Namespace, model: "Model", folder: "DataFolder", recipe: "Recipe", synth: Any
) -> None:
    """Let the model write."""
    tokens = arguments.tokens if arguments.tokens or arguments.minutes else DEFAULT_TOKENS
    seconds = None if arguments.minutes is None else 60 * arguments.minutes
    prompts = None if arguments.prompts is None else read_prompts(arguments.prompts, model)
    with progress_bar("writing") as report:
        synth.synthesize(
            model, folder, recipe, synth.Budget(tokens, seconds), prompts=prompts, progress=report
        )


def open_folder(arguments: argparse.Namespace, model: "Model", recipe: "Recipe") -> "DataFolder":
    """The data folder, new or to go on with."""
    from forerun.training.data import create_data

    described = {
        "name": model.name,
        "vocabulary_size": model.config.vocabulary_size,
        "tokenizer": file_digest(arguments.bundle / "tokenizer.json"),
    }
    return create_data(arguments.output, described, recipe.described())


def _import_training() -> object:
    from forerun.training import synth

    return synth


def check_numbers(arguments: argparse.Namespace) -> None:
    """Raise `OptionError` for numbers out of range."""
    for name in ("tokens", "minutes", "answer_tokens", "sequences"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise OptionError(f"--{name.replace('_', '-')} is {value}; it must be more than 0")
    if not 0 <= arguments.seed < 2**23:
        raise OptionError(f"--seed is {arguments.seed}; it must be between 0 and {2**23 - 1}")


def file_digest(path: Path) -> str:
    """What tells one file's bytes from another's; raises `DataError` if it cannot be read."""
    from forerun.training.data import digest

    try:
        return digest(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """A text file; raises `DataError` if it is empty or none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as text: {error}") from error
    if not text.strip():
        raise DataError(f"{path} is empty; give a file with text in it")
    return text


def read_prompts(path: Path, model: "Model") -> list[list[int]]:
    """Token ids of the prompts of a file (first turns only); those too long for the model's sequences are left out."""
    if path.suffix == ".jsonl":
        texts = [prompt.turns[0] for prompt in load_prompts(path)]
    else:
        texts = [line for line in read_text(path).splitlines() if line.strip()]
    encoded = [model.encode_prompt(text) for text in texts]
    return [ids for ids in encoded if len(ids) < model.context_length]


def print_folder(folder: "DataFolder") -> None:
    """What the folder holds now."""
    state = folder.state
    print(f"{folder.path}: {state.conversations:,} conversations, {state.tokens:,} tokens")
    for reason, count in sorted((state.dropped or {}).items()):
        print(f"  dropped: {reason}, {count:,}")
