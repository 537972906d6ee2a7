"""Answers to prompts of several tasks, plain and with the drafts that a peer has without a second model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.race.files import SOURCE
from benchmarks.race.results import Results
from benchmarks.race.trials import FEW_ROWS_PEERS, Trial

# MT-bench's categories count as one task, as Spec-Bench has it.
CHAT = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
TOKENS = 128
# Mode → tokens of a draft at most (forerun's planner decides for itself) and the peers that run it. llama.cpp's own
# binding drafts 10 by default and advises 2 for CPUs.
MODES: dict[str, tuple[int, tuple[str, ...]]] = {
    "plain": (0, FEW_ROWS_PEERS),
    "drafted": (10, FEW_ROWS_PEERS),
    "drafted by 2": (2, ("llama.cpp",)),
}


def task_trials(path: Path, first: int | None) -> tuple[Trial, ...]:
    """A trial for each task of a prompts file and each mode; of every category the `first` prompts (None: all).

    Raises `OptionError` for a file that is none.
    """
    from forerun.cli.prompts import load_prompts
    from forerun.models.sources import open_checkpoint
    from forerun.training.prompts import prompt_ids

    categories: dict[str, list[str]] = {}
    for prompt in load_prompts(path):
        texts = categories.setdefault(prompt.category or "prompts", [])
        if first is None or len(texts) < first:
            texts.append(prompt.turns[0])
    tasks: dict[str, list[str]] = {}
    for category, texts in categories.items():
        tasks.setdefault("chat" if category in CHAT else category, []).extend(texts)
    files = open_checkpoint(SOURCE).read_tokenizer()
    return tuple(
        Trial(
            named(task, mode),
            "tasks",
            "answers",
            0,
            {
                "prompts": prompt_ids(files, texts),
                "tokens": TOKENS,
                "drafted": drafted,
                "ends": list(files.eos_token_ids),
            },
            "tokens/s",
            1,
            peers=peers,
        )
        for task, texts in tasks.items()
        for mode, (drafted, peers) in MODES.items()
    )


def named(task: str, mode: str) -> str:
    """What a task's trial in a mode is called."""
    return f"{task}, {mode}"


def tasks_in(results: Results) -> list[str]:
    """Tasks that a run measured."""
    ending = ", plain"
    tests = dict.fromkeys(sample.test for sample in results.samples)
    return [test.removesuffix(ending) for test in tests if test.endswith(ending)]


def best_of(results: Results, names: Sequence[str]) -> tuple[str, str] | None:
    """The entrant and mode with the most tokens a second, as a mean over the tasks; None without a whole set."""
    found: dict[tuple[str, str], float] = {}
    for name in names:
        for mode in MODES:
            speeds = [results.median(named(task, mode), name) for task in tasks_in(results)]
            known = [speed for speed in speeds if speed is not None]
            if known and len(known) == len(speeds):
                found[name, mode] = mean(known)
    return max(found, key=lambda key: found[key]) if found else None
