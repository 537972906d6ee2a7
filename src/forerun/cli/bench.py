"""`forerun bench`: how fast a bundle is, and what each drafter gives."""

import argparse
import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forerun.cli.options import add_bundle, open_model
from forerun.cli.plot import plot_speedups
from forerun.cli.progress import progress_bar
from forerun.cli.prompts import load_prompts
from forerun.cli.tables import make_table, number, print_table
from forerun.errors import OptionError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from forerun.cli.measure import Plan, Row
    from forerun.runtime.model import Model

NAME = "bench"
HELP = (
    "measure a bundle: prompt processing, decoding, calls of n rows, sequences together, and every drafter"
    " against plain decoding"
)
EXAMPLES = (
    "forerun bench BUNDLE",
    "forerun bench BUNDLE --pp 0 --tg 0 --rows 0 --drafter lookup --drafter self:layers=20,tokens=3",
    "forerun bench BUNDLE --pp 0 --tg 128 --rows 0 --sequences 1,4,16",
    "forerun bench BUNDLE --profile --rows 1,4 --contexts 128,2048",
    "forerun bench BUNDLE --prompts prompts.jsonl --drafter lookup:branches=2 --repetitions 5 --json",
)
DEFAULT_ANSWER_TOKENS = 64
COLUMNS = (
    "test",
    "tokens/s",
    "ms",
    "accepted",
    "accept %",
    "draft ms",
    "verify ms",
    "speed-up",
    "worst",
    "peak MiB",
)
BRIEF_COLUMNS = ("test", "tokens/s", "accepted", "speed-up")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_bundle(parser)
    add_drafting(parser)
    parser.add_argument(
        "--pp", type=int, default=128, metavar="N", help="prompt tokens; 0 = leave out (default 128)"
    )
    parser.add_argument(
        "--tg", type=int, default=64, metavar="N", help="tokens to decode; 0 = leave out (default 64)"
    )
    parser.add_argument(
        "--rows",
        metavar="N,…",
        help="rows per call; 0 = leave out (default 1,2,4,8,16; with --profile 1)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="instead of the tests: where the time of a call goes, kernel by kernel and layer by layer, beside"
        " the read bandwidth of the machine's memory",
    )
    parser.add_argument(
        "--contexts",
        default="128",
        metavar="N,…",
        help="positions before the rows of a call that is profiled (default 128)",
    )
    parser.add_argument(
        "--sequences",
        default="0",
        metavar="N,…",
        help="sequences that decode together, such as 1,4,16: tokens/s of all, speed-up over 1;"
        " 0 = leave out (default)",
    )
    parser.add_argument(
        "--repetitions", type=int, default=3, metavar="N", help="times each test is run (default 3)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of rows as JSON instead of a table")
    form.add_argument(
        "--brief", action="store_true", help="one small table: speed, accepted length, speed-up"
    )


def add_drafting(parser: argparse.ArgumentParser) -> None:
    """Which drafters answer which prompts."""
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='JSONL, one {"turns": ["…"], "id": …, "category": …} a line (default: six built-in prompts)',
    )
    parser.add_argument(
        "--confirm",
        type=int,
        default=0,
        metavar="N",
        help="measure each drafter's N slowest prompts nine times more: the column `worst` then says what these gave,"
        " instead of the smallest of many noisy numbers (default 0: do not)",
    )
    parser.add_argument(
        "--drafter",
        action="append",
        default=[],
        metavar="SPEC",
        help="NAME[:key=value,…]; may be repeated. coin:rate=0.7,tokens=3 drafts the known answer, each token right"
        " with that chance, at no cost: what calls are worth, apart from drafts",
    )
    parser.add_argument(
        "--shape", metavar="SPEC", help="draft shape of all drafters that have one, such as grown:rows=16"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="of the answers; 0 = greedy (default)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draws (default 0)")
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the drafters' speed-ups by category into a file"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.profile:
        return profile(arguments)
    rows = parse_counts("rows", arguments.rows or "1,2,4,8,16")
    sequences = parse_counts("sequences", arguments.sequences)
    check_numbers(arguments)
    prompts = load_prompts(arguments.prompts)
    from forerun.cli.bench_drafters import options_for
    from forerun.cli.measure import Plan, measure, summarize
    from forerun.cli.slowest import confirm_worst
    from forerun.runtime.settings import Sampling

    for spec in arguments.drafter:
        options_for(spec, arguments.shape, ())
    plan = Plan(
        prompt_tokens=arguments.pp,
        generated_tokens=arguments.tg,
        rows=rows,
        drafters=tuple(dict.fromkeys(arguments.drafter)),
        prompts=prompts,
        answer_tokens=arguments.tg or DEFAULT_ANSWER_TOKENS,
        repetitions=arguments.repetitions,
        sequences=sequences,
        shape=arguments.shape,
        sampling=Sampling(temperature=arguments.temperature, seed=arguments.seed),
    )
    with open_model(arguments) as model, progress_bar("measuring") as report:
        check_rows(rows, model.config.max_rows)
        with open_for_sequences(arguments, plan, model.context_length) as many:
            samples = measure(model, plan, report, many)
        result = summarize(plan, samples)
        if arguments.confirm:
            result = confirm_worst(model, plan, samples.speculation, result, arguments.confirm, report)
        title = f"{model.name}, {model.threads} threads"
    if arguments.json:
        print(json.dumps([asdict(row) for row in result], ensure_ascii=False, indent=1))
    else:
        print(title)
        print_rows(result, BRIEF_COLUMNS if arguments.brief else COLUMNS)
    if arguments.plot is not None:
        plot_speedups(arguments.plot, title, result)
    return 0


def profile(arguments: argparse.Namespace) -> int:
    """Profile calls and print."""
    if arguments.context is not None:
        raise OptionError("--profile makes room for what --contexts says; leave --context out")
    rows = parse_counts("rows", arguments.rows or "1")
    contexts = parse_counts("contexts", arguments.contexts)
    check_numbers(arguments)
    from forerun.cli.profile import profile_bundle
    from forerun.cli.profile_table import print_profiles

    with progress_bar("profiling") as report:
        profiles = profile_bundle(
            arguments.bundle,
            arguments.target,
            arguments.threads,
            rows,
            contexts,
            arguments.repetitions,
            report,
        )
    if arguments.json:
        print(json.dumps([asdict(one) for one in profiles], ensure_ascii=False, indent=1))
    else:
        print_profiles(profiles)
    return 0


def open_for_sequences(
    arguments: argparse.Namespace, plan: "Plan", context: int
) -> "AbstractContextManager[Model | None]":
    """The model once more, with room for all sequences but no more context than their answers need."""
    if not plan.sequences:
        return nullcontext()
    return open_model(arguments, sequences=max(plan.sequences), context=min(context, plan.answer_tokens + 1))


def parse_counts(name: str, text: str) -> tuple[int, ...]:
    """`1,2,4` → (1, 2, 4); `0` → (); raises `OptionError` with the option's name."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(
            f"--{name} is {text!r}; it must be whole numbers joined by commas, such as 1,2,4"
        ) from error
    if counts == (0,):
        return ()
    if min(counts) < 1:
        raise OptionError(
            f"--{name} is {text!r}; every number must be 1 or more (0 alone leaves the test out)"
        )
    return tuple(dict.fromkeys(counts))


def check_numbers(arguments: argparse.Namespace) -> None:
    """Raise `OptionError` for numbers out of range."""
    for name, least in (("pp", 0), ("tg", 0), ("repetitions", 1), ("confirm", 0)):
        value = getattr(arguments, name)
        if value < least:
            raise OptionError(f"--{name} is {value}; it must be {least} or more")


def check_rows(counts: tuple[int, ...], max_rows: int) -> None:
    """Raise `OptionError` for more rows than a verify call can carry."""
    from forerun.runtime.generate import MAX_TREE_ROWS

    limit = min(max_rows, MAX_TREE_ROWS)
    if counts and max(counts) > limit:
        raise OptionError(f"--rows asks for {max(counts)} rows; a call carries at most {limit}")


def print_rows(rows: "list[Row]", columns: tuple[str, ...]) -> None:
    """The table: totals, then, unless brief, one for each category."""
    for category in dict.fromkeys(row.category for row in rows):
        if category is not None:
            if columns == BRIEF_COLUMNS:
                continue
            print(f"category: {category}")
        chosen = [cells(row) for row in rows if row.category == category]
        print_table(make_table(columns, [[row[name] for name in columns] for row in chosen]))
    if any(row.same_ids is False for row in rows):
        print("warning: a drafter gave other ids than plain decoding")


def cells(row: "Row") -> dict[str, str]:
    """One row of the table as text, by column."""
    percent: Any = None if row.acceptance_rate is None else 100 * row.acceptance_rate
    speed = "–" if row.tokens_per_s is None else f"{row.tokens_per_s:.1f} ± {number(row.tokens_per_s_std)}"
    texts = (
        row.test,
        speed,
        number(row.ms, 2),
        number(row.mean_accepted_length, 2),
        number(percent),
        number(row.draft_ms, 2),
        number(row.verify_ms, 2),
        number(row.speedup, 2) + ("" if row.speedup is None else "x"),
        number(row.worst_speedup, 2) + ("" if row.worst_speedup is None else "x"),
        number(row.peak_rss_bytes / 2**20, 0),
    )
    return dict(zip(COLUMNS, texts, strict=True))
