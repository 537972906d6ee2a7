"""What an app gets that takes the core without Python: time to the first token, and the native loop's speed.

`python -m benchmarks.app BUNDLE`. The first token is timed by a C program, in a process of its own each time. Loops are
compared on the built-in prompts, or on a file's: the native one answers each prompt right after Python's, for every
drafter, and the speed-up of a repetition is that of its sums.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Literal

import forerun
from forerun.cli.measure import Sums, prompt_of
from forerun.cli.prompts import Prompt, load_prompts
from forerun.runtime.library import find_library
from forerun.runtime.model import Model

REPOSITORY = Path(__file__).resolve().parent.parent
PROMPT_TOKENS = 32
Loop = Literal["python", "native"]
STAGES = ("open the bundle", "make the session", "read the prompt", "all")
DRAFTERS = ("none", "lookup", "auto")
LOOPS: tuple[Loop, ...] = ("python", "native")


@contextmanager
def first_token_program() -> Iterator[Path]:
    """Compile `first_token.c` against the installed core."""
    library = find_library()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "first_token"
        source, headers = (
            REPOSITORY / "benchmarks" / "first_token.c",
            REPOSITORY / "runtime" / "native" / "include",
        )
        flags = ["-O2", "-std=c11", f"-I{headers}"]
        subprocess.run(
            ["cc", *flags, str(source), str(library), f"-Wl,-rpath,{library.parent}", "-o", str(program)],
            check=True,
        )
        yield program


def time_first_token(bundle: Path, threads: int, repetitions: int) -> list[float]:
    """Medians in milliseconds, one for each of `STAGES`; a first process, which warms the files, does not count."""
    with first_token_program() as program:
        command = [str(program), str(bundle), str(threads), str(PROMPT_TOKENS)]
        runs = [
            subprocess.run(command, check=True, capture_output=True, text=True)
            for _ in range(repetitions + 1)
        ]
    times = [[float(part) for part in run.stdout.split()] for run in runs[1:]]
    return [median(stage) for stage in zip(*times, strict=True)]


def compare_loops(
    model: Model, prompts: Sequence[Prompt], drafters: Sequence[str], tokens: int, repetitions: int
) -> dict[str, list[tuple[Sums, Sums]]]:
    """By drafter the sums of Python's loop and of the native one, repetition by repetition."""
    found: dict[str, list[tuple[Sums, Sums]]] = {drafter: [] for drafter in drafters}
    for repetition in range(repetitions + 1):
        for drafter in drafters:
            pair = answer_all(model, prompts, drafter, tokens)
            if repetition:  # the first one warms up
                found[drafter].append(pair)
    return found


def answer_all(model: Model, prompts: Sequence[Prompt], drafter: str, tokens: int) -> tuple[Sums, Sums]:
    """Let both loops answer the first turn of every prompt; ends the program if their ids differ."""
    python, native = Sums(), Sums()
    for prompt in prompts:
        source = prompt_of(model, [{"role": "user", "content": prompt.turns[0]}])
        defined, found = (
            model.generate(
                source, max_tokens=tokens, drafter=drafter, loop=loop, reuse_cache=False
            ).complete()
            for loop in LOOPS
        )
        if found.ids != defined.ids:
            raise SystemExit(f"{drafter}: the loops disagree on prompt {prompt.id}")
        python.add(defined.stats, same_ids=True)
        native.add(found.stats, same_ids=True)
    return python, native


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--prompts", metavar="FILE", help="JSONL as for `forerun bench` (default: its built-in ones)"
    )
    parser.add_argument("--drafter", action="append", metavar="SPEC", help=f"default: {', '.join(DRAFTERS)}")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer at most (default 128)")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    times = time_first_token(arguments.bundle, arguments.threads, 4 * arguments.repetitions)
    print(f"first token of a prompt of {PROMPT_TOKENS}, {arguments.threads} threads, median ms: ", end="")
    print(", ".join(f"{stage} {ms:.2f}" for stage, ms in zip(STAGES, times, strict=True)))
    prompts = load_prompts(arguments.prompts)
    with forerun.load(arguments.bundle, threads=arguments.threads) as model:
        drafters = arguments.drafter or DRAFTERS
        found = compare_loops(model, prompts, drafters, arguments.tokens, arguments.repetitions)
    for drafter, pairs in found.items():
        ratios = [native.tokens_per_s / python.tokens_per_s for python, native in pairs]
        print(
            f"native loop over Python's, {drafter}: {median(ratios):.3f} ({min(ratios):.3f} … {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
