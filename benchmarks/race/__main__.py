"""`python -m benchmarks.race`: set the peers up, run the race, write the report."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.race.contest import Contest
from benchmarks.race.cpu import read_cpu
from benchmarks.race.environments import PLOT, ROOT, Progress, make_environment, python_of
from benchmarks.race.files import model_file
from benchmarks.race.interface import GEMMA, Entrant, RaceError
from benchmarks.race.machine import describe_machine
from benchmarks.race.peers import PEERS
from benchmarks.race.quality import read_ids, run_quality
from benchmarks.race.report import write_report
from benchmarks.race.results import Results, read_results
from benchmarks.race.tasks import task_trials
from benchmarks.race.trials import CONTEXT, GROUPS, TIMED

OF_SMOLLM2 = ("tasks", "quality")  # tests that need its tokenizer
RAW, REPORT, PICTURE = "results.json", "RESULTS.md", "results.png"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race",
        description="Run forerun beside its peers on one model and write RESULTS.md, results.png and results.json."
        " Each peer gets an environment of its own under build/race. Ctrl-C ends the run and keeps what it measured.",
    )
    parser.add_argument("--peers", help=f"comma-separated (default: all): {', '.join(PEERS)}")
    parser.add_argument(
        "--sources",
        help=f"comma-separated formats of SmolLM2's weights (default: all), such as Q4_1,Q4_0; or {GEMMA}",
    )
    parser.add_argument("--tests", help=f"comma-separated (default: all): {', '.join(GROUPS)}")
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="also answer these prompts, plain and drafted (JSON lines as for forerun bench --prompts)",
    )
    parser.add_argument("--first", type=int, metavar="N", help="only the first N prompts of each category")
    parser.add_argument("--repetitions", type=int, default=5, help="of every test (default 5)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks", help="folder (default benchmarks)"
    )
    parser.add_argument(
        "--setup-only", action="store_true", help="make environments and model files, run nothing"
    )
    parser.add_argument(
        "--report-only", action="store_true", help=f"write the report anew from the output folder's {RAW}"
    )
    return parser


def main(arguments: list[str]) -> int:
    """0, or 2 with a message for what the user can change, 130 after Ctrl-C."""
    options = build_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a run as Ctrl-C does
    start = time.monotonic()

    def progress(what: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {what}", file=sys.stderr, flush=True)

    try:
        make_environment(PLOT, progress)
        if options.report_only:
            write_outputs(read_results(options.output / RAW), options.output)
            return 0
        return run(options, arguments, progress)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (RaceError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace, arguments: list[str], progress: Progress) -> int:
    """Set up, measure, report."""
    if options.repetitions < 1:
        raise RaceError(f"--repetitions is {options.repetitions}; it must be 1 or more")
    groups = choose(options.tests, GROUPS, "--tests")
    if options.tests is not None and "tasks" in groups and options.prompts is None:
        raise RaceError("--tests tasks needs prompts to answer; give --prompts FILE")
    cpu = read_cpu()
    peers = choose(options.peers, tuple(PEERS), "--peers")
    entrants = [entrant for name in peers for entrant in PEERS[name]().entrants(cpu)]
    sources = choose_sources(options.sources, entrants)
    if sources == (GEMMA,) and options.tests is None:
        groups = tuple(group for group in groups if group not in OF_SMOLLM2)
    elif sources == (GEMMA,) and set(groups) & set(OF_SMOLLM2):
        raise RaceError(f"the tests {', '.join(OF_SMOLLM2)} are of SmolLM2; leave them out for {GEMMA}")
    entrants = [entrant for entrant in entrants if entrant.source in sources]
    for entrant in entrants:
        make_environment(PEERS[entrant.peer]().recipe(entrant.environment, cpu), progress)
    models = {entrant.model: model_file(entrant.model, progress) for entrant in entrants}
    if options.setup_only:
        return 0
    results = Results(describe_machine(cpu, arguments))
    contest = Contest(entrants, models, read_ids(CONTEXT), results, progress)
    status = compete(contest, options, groups)
    results.machine["minutes"] = round((time.monotonic() - contest.started) / 60)
    write_outputs(results, options.output)
    return status


def compete(contest: Contest, options: argparse.Namespace, groups: Sequence[str]) -> int:
    """All repetitions; after each of them the raw results are written."""
    trials = [trial for trial in TIMED if trial.group in groups]
    if options.prompts is not None and "tasks" in groups:
        trials += task_trials(options.prompts, options.first)
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        for repetition in range(options.repetitions):
            contest.run_repetition(repetition, trials, with_start="start" in groups)
            contest.results.write(options.output / RAW)
        contest.close()
        if "quality" in groups:
            run_quality(contest, contest.ids)
        return 0
    except KeyboardInterrupt:
        contest.results.notes.append("The run was interrupted: the last repetition is not complete.")
        return 130
    finally:
        contest.close()


def choose_sources(text: str | None, entrants: Sequence[Entrant]) -> tuple[str, ...]:
    """Formats of SmolLM2's weights, or the other model alone."""
    known = tuple(dict.fromkeys(entrant.source for entrant in entrants))
    if text is None:
        return tuple(source for source in known if source != GEMMA)
    chosen = choose(text, known, "--sources")
    if GEMMA in chosen and len(chosen) > 1:
        raise RaceError(f"--sources has {GEMMA} beside others; it is another model and runs by itself")
    return chosen


def choose(text: str | None, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The names in a comma-separated list, in the order of `known`; raises `RaceError` for others."""
    if text is None:
        return known
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RaceError(f"{option} has no {unknown[0]!r}; it has {', '.join(known)}")
    return tuple(name for name in known if name in names)


def write_outputs(results: Results, output: Path) -> None:
    """Raw results, report and picture; the picture in an environment of its own."""
    output.mkdir(parents=True, exist_ok=True)
    results.write(output / RAW)
    write_report(results, output / REPORT, PICTURE)
    command = [
        str(python_of(PLOT.name)),
        "-m",
        "benchmarks.race.plot",
        str(output / RAW),
        str(output / PICTURE),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RaceError(f"the picture cannot be drawn: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
