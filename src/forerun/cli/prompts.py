"""Prompts for the benchmark: a JSONL file, or a small built-in set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forerun.errors import OptionError

_PASSAGE = (
    "The grey heron stands still in shallow water and waits. When a fish comes near, the heron strikes "
    "with its long bill and swallows the fish whole. Herons nest together in tall trees, in colonies "
    "called heronries, and return to the same nests each spring. Both parents build the nest, sit on the "
    "eggs and feed the young. In winter many herons move to milder coasts, where the water does not freeze."
)
_FUNCTION = (
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n"
)


@dataclass(frozen=True)
class Prompt:
    """One conversation: the user's `turns`, answered one after the other."""

    turns: tuple[str, ...]
    id: str
    category: str | None = None


BUILT_IN: tuple[Prompt, ...] = (
    Prompt(("What makes the sky blue? Explain it to a child.",), "sky", "chat"),
    Prompt(
        ("Give me three ideas for a rainy Sunday.", "Tell me more about the second one."), "sunday", "chat"
    ),
    Prompt((f"Repeat the following text word for word.\n\n{_PASSAGE}",), "repeat", "copy"),
    Prompt((f"Summarize the following text, quoting its sentences.\n\n{_PASSAGE}",), "summary", "copy"),
    Prompt(
        (f"Add a docstring to this function and print the whole function.\n\n{_FUNCTION}",),
        "docstring",
        "code",
    ),
    Prompt(("Write a Python class for a stack with push, pop and peek.",), "stack", "code"),
)


def load_prompts(path: Path | None) -> tuple[Prompt, ...]:
    """The prompts of a JSONL file, the built-in ones for None; raises `OptionError` naming the line."""
    if path is None:
        return BUILT_IN
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise OptionError(f"prompts file {path} cannot be read: {error.strerror}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise OptionError(f"prompts file {path} holds no prompts; write one JSON object a line")
    return tuple(
        _parse_line(f"prompts file {path}, line {number}", line, number) for number, line in numbered
    )


def _parse_line(where: str, line: bytes, number: int) -> Prompt:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise OptionError(f"{where}: not UTF-8: {error.reason} at byte {error.start}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise OptionError(f"{where}: not JSON: {error}") from error
    turns = value.get("turns") if isinstance(value, dict) else None
    if not isinstance(turns, list) or not _are_texts(turns):
        raise OptionError(
            f'{where}: "turns" must be a list of at least one text, as in {{"turns": ["Hello"]}}'
        )
    category = value.get("category")
    if category is not None and not isinstance(category, str):
        raise OptionError(f'{where}: "category" must be a text')
    return Prompt(tuple(turns), str(value.get("id", number)), category)


def _are_texts(turns: list[Any]) -> bool:
    return bool(turns) and all(isinstance(turn, str) and turn for turn in turns)
