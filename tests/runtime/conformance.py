"""Two loops over the same prompts: the one of `generate.py`, which defines it, and the native core's."""

from collections.abc import Sequence
from typing import Any, Literal

from forerun.runtime.generation import Generation
from forerun.runtime.model import Model

LOOPS: tuple[Literal["native", "python"], ...] = ("native", "python")


def counts_of(answer: Generation) -> dict[str, Any]:
    """The acceptance trace: all counters, without times."""
    counts = answer.stats.to_dict()
    return {name: value for name, value in counts.items() if not name.endswith(("_ms", "_per_s"))}


def check_conformance(
    model: Model, prompt: Sequence[int], *, reuse: bool = False, **options: Any
) -> Generation:
    """Run both loops and compare ids, text, end and trace; returns the native answer.

    With `reuse`, each goes on from its own answer to half of the prompt: what a draft knows, it saw in its own loop. A
    planner goes by times, so two runs of it need not draft the same: of "auto" no trace is compared.
    """
    answers = []
    for loop in LOOPS:
        if reuse:
            half = prompt[: (len(prompt) + 1) // 2]
            model.generate(half, loop=loop, reuse_cache=False, **options).complete()
        answers.append(model.generate(prompt, loop=loop, reuse_cache=reuse, **options).complete())
    native, defined = answers
    assert native.ids == defined.ids
    assert native.text == defined.text
    assert native.finish_reason == defined.finish_reason
    if not options.get("drafter", "none").startswith("auto"):
        assert counts_of(native) == counts_of(defined)
    return native
