"""Two loops over the same prompts: the one of `generate.py`, which defines it, and the native core's."""

from collections.abc import Sequence
from typing import Any

from forerun.runtime.generation import Generation
from forerun.runtime.model import Model


def counts_of(answer: Generation) -> dict[str, Any]:
    """The acceptance trace: all counters, without times."""
    counts = answer.stats.to_dict()
    return {name: value for name, value in counts.items() if not name.endswith(("_ms", "_per_s"))}


def check_conformance(
    model: Model, prompt: Sequence[int], *, reuse: bool = False, **options: Any
) -> Generation:
    """Run both loops and compare ids, text, end and trace; returns the native answer.

    A planner goes by times, so two runs of it need not draft the same: of "auto" no trace is compared.
    """
    native, defined = (
        model.generate(prompt, loop=loop, reuse_cache=reuse, **options).complete()
        for loop in ("native", "python")
    )
    assert native.ids == defined.ids
    assert native.text == defined.text
    assert native.finish_reason == defined.finish_reason
    if not options.get("drafter", "none").startswith("auto"):
        traces = counts_of(native), counts_of(defined)
        for counts in traces:
            counts.pop("cached_tokens")  # the second run finds what the first has left
        assert traces[0] == traces[1]
    return native
