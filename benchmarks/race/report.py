"""RESULTS.md: machine, settings, the bars, one table for each kind of test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.race.bars import Outcome, judge_all
from benchmarks.race.results import DISTURBED_CORES, Results, spread
from benchmarks.race.tasks import MODES, named, tasks_in
from benchmarks.race.trials import MEMORY, QUALITY, START, TIMED

TITLES = {
    "tg": "Plain decoding: tokens/s for 64 tokens after one",
    "rows": "Calls of several rows after a context of 128: ms per call, logits of every row",
    "pp": "Prompts into an empty cache: tokens/s",
    "context": "Decoding 32 tokens far into a text: tokens/s",
    "sequences": "Sequences together: tokens/s of all, 64 tokens each",
    **{
        mode: f"Answers to prompts by task, up to 128 tokens each, {mode}: tokens/s without the prompts"
        for mode in MODES
    },
    "start": "Start in a fresh process: ms from opening the model to the end of its first row, imports done before;"
    " peak memory in MB beyond the imports, after a prompt of 512 and 32 tokens, KV cache of 8,192 positions",
    "quality": "Mean KL from the float model of the Q4_1 file, 2,048 tokens of text in windows of 512: nats",
}
DIGITS = {"nats": 4, "ms": 2, "GB/s": 1}
MET = {True: "met", False: "**missed**", None: "–"}


def write_report(results: Results, path: Path, picture: str) -> None:
    """Write the report; `picture` is the file beside it."""
    path.write_text("\n".join(report_lines(results, picture)) + "\n", encoding="utf-8")


def report_lines(results: Results, picture: str) -> list[str]:
    """The report, line by line."""
    lines = ["# The race", "", *machine_lines(results), "", "## Bars", "", *bar_lines(judge_all(results)), ""]
    lines += [f"![tokens/s against rows per call and against context]({picture})", ""]
    for group, title in TITLES.items():
        tests = tests_of(group, results)
        table = table_lines(results, tests)
        if table:
            lines += [f"## {title}", "", *table, ""]
    return [*lines, *failure_lines(results), "## Entrants", "", *entrant_lines(results)]


def machine_lines(results: Results) -> list[str]:
    """Where, when and how it was measured."""
    machine = results.machine
    lines = [
        f"SmolLM2-135M-Instruct, greedy, {machine['date']}, commit {machine['commit']}, `{machine['command']}`,"
        f" {results.repetitions} repetitions, {machine.get('minutes', '?')} minutes.",
        "",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB,"
        f" {', '.join(machine['cpu_flags'])}; Linux {machine['kernel']}, Python {machine['python']};"
        f" load average at the start {machine['load_average']}.",
    ]
    disturbed = sum(sample.others > DISTURBED_CORES for sample in results.samples)
    lines.append(
        f"Of {len(results.samples)} samples, others used more than {DISTURBED_CORES} cores during {disturbed}"
        + (", each tried again: **the machine was not idle**." if disturbed else ".")
    )
    if not machine["has_amx"]:
        lines.append(
            "This CPU has no AMX: llama.cpp's AMX build was not made, and no bar was held against it."
        )
    lines += [
        "",
        "Entrants take turns in every test of every repetition; those that wait are stopped processes. Figures are"
        " medians ± half the distance from the smallest to the largest; ratios are medians of the ratios within a"
        " repetition. 2 threads where nothing else is said.",
        *results.notes,
    ]
    return lines


def bar_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The table of bars."""
    rows = [[one.what, one.bar, one.measured, MET[one.met]] for one in outcomes]
    return markdown_table(["what", "bar", "measured", ""], rows)


def tests_of(group: str, results: Results) -> list[str]:
    """The names of a group's tests; those of a mode of the tasks depend on the prompts that were run."""
    if group in MODES:
        return [named(task, group) for task in tasks_in(results)]
    if group == "start":
        return [START, MEMORY]
    if group == "quality":
        return [QUALITY]
    return [trial.name for trial in TIMED if trial.group == group]


def table_lines(results: Results, tests: Sequence[str]) -> list[str]:
    """One line for each entrant that was asked for any of the tests; none, if there is none."""
    rows = []
    for entrant in results.entrants:
        cells = [cell(results, test, entrant.name) for test in tests]
        if any(cells):
            rows.append([entrant.name, *(text or "–" for text in cells)])
    return markdown_table(["", *tests], rows) if rows else []


def cell(results: Results, test: str, entrant: str) -> str:
    """Median and spread, the reason's first word where there are none, nothing where it was not asked."""
    values = list(results.values(test, entrant).values())
    middle = results.median(test, entrant)
    if middle is not None:
        digits = DIGITS.get(results.unit(test), 0)
        extent = f" ± {spread(values):.{digits}f}" if len(values) > 1 else ""
        return f"{middle:.{digits}f}{extent}"
    note = results.note(test, entrant)
    return "crashed" if note.startswith("crashed") else "no" if note else ""


def failure_lines(results: Results) -> list[str]:
    """Why cells are empty."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for sample in results.samples:
        if sample.note:
            tests = reasons.setdefault((sample.entrant, sample.note), [])
            tests += [sample.test] if sample.test not in tests else []
    if not reasons:
        return []
    shown = [f"- {entrant}, {'; '.join(tests)}: {note}" for (entrant, note), tests in reasons.items()]
    return ["## Not measured", "", *shown, ""]


def entrant_lines(results: Results) -> list[str]:
    """Versions and settings as the entrants tell them."""
    rows = [
        [one.name, "; ".join(f"{key} {value}" for key, value in one.description.items())]
        for one in results.entrants
    ]
    return markdown_table(["", "versions and settings"], rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; bars in cells are escaped."""
    lines = [list(header), ["---"] * len(header), *rows]
    return ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
