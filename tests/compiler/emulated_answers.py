"""Running the native loop on a 64-bit Arm under qemu, beside its definition on this machine.

The reference is the Python loop over the same bundle's program for this machine: logits of targets with a fused
multiply-add are equal to the last bit (test_package.py), so ids and acceptance traces have to be."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emulated_kernels import COMPILER, processor_command

from forerun.runtime.model import Model

SOURCE = Path(__file__).parents[1] / "native" / "answers.c"


@dataclass(frozen=True)
class Question:
    """A prompt and what drafts its answer."""

    prompt: Sequence[int]
    drafter: str = "none"
    shape: str | None = None
    exit: str = "never"
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0
    max_tokens: int = 24

    def line(self) -> str:
        """As answers.c reads it."""
        numbers = (self.temperature, self.top_k, self.seed, self.max_tokens)
        prompt = " ".join(map(str, self.prompt))
        return "|".join([self.drafter, self.shape or "-", self.exit, *map(str, numbers), prompt]) + "\n"


@dataclass(frozen=True)
class Trace:
    """An answer's ids, calls, drafted and accepted rows by depth, and kept rows by the layer they left after.

    A planner goes by times, so that of "auto" only the ids are told.
    """

    ids: list[int]
    verify_calls: int = 0
    drafted: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    exits: tuple[tuple[int, int], ...] = ()


def answer_by_definition(model: Model, questions: Sequence[Question]) -> list[Trace]:
    """The Python loop's answers, each in the cache that the one before left."""
    traces = []
    for asked in questions:
        answer = model.generate(
            asked.prompt,
            drafter=asked.drafter,
            shape=asked.shape,
            exit=asked.exit,
            temperature=asked.temperature,
            top_k=asked.top_k,
            seed=asked.seed,
            max_tokens=asked.max_tokens,
            ignore_end=True,
            loop="python",
        ).complete()
        facts = answer.stats
        trace = (facts.verify_calls, _cut(facts.drafted_per_position), _cut(facts.accepted_per_position))
        exits = tuple(sorted(facts.exits_per_layer.items()))
        traces.append(Trace(answer.ids) if asked.drafter == "auto" else Trace(answer.ids, *trace, exits))
    return traces


def build_answers(package: Path, app: Path, name: str) -> None:
    """Build answers.c with a package for Linux on Arm, its programs part of it."""
    options = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{package / 'include'}"]
    options += [f"-DLINKED=forerun_{name}_programs", f'-DLINKED_HEADER="{name}.h"']
    libraries = [str(package / "lib" / library) for library in (f"lib{name}.a", "libforerun.a")]
    last = ["-lstdc++", "-lpthread", "-ldl", "-lm"]
    subprocess.run([COMPILER, *options, str(SOURCE), *libraries, *last, "-o", str(app)], check=True)


def answer_emulated(
    app: Path, model: Path, processor: str, questions: Sequence[Question], threads: int = 1
) -> list[Trace]:
    """The native loop's answers on one of qemu's processors."""
    command = [*processor_command(processor), str(app), str(model), "-", str(threads)]
    done = subprocess.run(
        [*command, str(app.with_name("saved"))],
        input="".join(asked.line() for asked in questions),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    numbers = [(words[0], [int(word) for word in words[1:]]) for words in lines]
    traces = []
    for asked, at in zip(questions, range(0, len(numbers), 5), strict=True):
        fields = dict(numbers[at : at + 5])
        left = tuple((layer, count) for layer, count in enumerate(fields["exits"]) if count)
        trace = (fields["verify_calls"][0], _cut(fields["drafted"]), _cut(fields["accepted"]), left)
        traces.append(Trace(fields["ids"]) if asked.drafter == "auto" else Trace(fields["ids"], *trace))
    return traces


def _cut(counts: Sequence[int]) -> tuple[int, ...]:
    """Without the zeros at the end."""
    last = max((place for place, count in enumerate(counts) if count), default=-1)
    return tuple(counts[: last + 1])
