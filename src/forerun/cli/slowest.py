"""The slowest answers measured again: the smallest of many noisy ratios is mostly noise."""

from collections.abc import Sequence
from dataclasses import replace

from forerun.cli.measure import (
    PLAIN,
    Plan,
    Progress,
    Row,
    SpeculationSums,
    Sums,
    answer_ratios,
    run_prompts,
    worst_of,
)
from forerun.cli.prompts import Prompt
from forerun.runtime.model import Model

REPETITIONS = 9


def confirm_worst(
    model: Model, plan: Plan, speculation: SpeculationSums, rows: list[Row], count: int, progress: Progress
) -> list[Row]:
    """Let every drafter answer its `count` slowest prompts 9 times more.

    Returns the rows with what that gave as the worst speed-up of a whole test, and none for its categories, whose
    slowest answers were not measured again.
    """
    worst: dict[str, float | None] = {}
    drafters = [drafter for drafter in plan.drafters if drafter != PLAIN]
    for place, drafter in enumerate(drafters):
        prompts = slowest_prompts(plan.prompts, speculation[drafter, None], speculation[PLAIN, None], count)
        again = replace(plan, prompts=prompts, drafters=(drafter,))
        sums: SpeculationSums = {}
        for repetition in range(REPETITIONS):

            def report(what: str, part: float, done: float = place + repetition / REPETITIONS) -> None:
                progress(f"{what} again", (done + part / REPETITIONS) / len(drafters))

            run_prompts(model, again, sums, report)
        worst[f"spec:{drafter}"] = worst_of(sums[drafter, None], sums[PLAIN, None])
    return [
        replace(row, worst_speedup=worst[row.test] if row.category is None else None)
        if row.test in worst
        else row
        for row in rows
    ]


def slowest_prompts(
    prompts: Sequence[Prompt], own: Sequence[Sums], plain: Sequence[Sums], count: int
) -> tuple[Prompt, ...]:
    """The prompts with the answers of the smallest speed-ups, `count` of them or all, in their order."""
    owners = [place for place, prompt in enumerate(prompts) for _ in prompt.turns]
    found = enumerate(answer_ratios(own, plain))
    by_speed = sorted((ratio, owners[answer]) for answer, ratio in found if ratio is not None)
    chosen = list(dict.fromkeys(place for _, place in by_speed))[:count]
    return tuple(prompts[place] for place in sorted(chosen))
