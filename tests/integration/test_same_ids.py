"""Speculation never changes a token: SmolLM2, every drafter, greedy and sampled, one and two threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from loop_helpers import Oracle, RandomTrees
from sample_prompts import PROMPTS

from forerun.runtime.model import Model
from forerun.runtime.protocol import Draft, DraftContext, Drafter, SessionLike

TOKENS = 64
GREEDY: dict[str, float] = {"temperature": 0.0}
SAMPLED: dict[str, float] = {"temperature": 0.7, "seed": 11}
HOT: dict[str, float] = {"temperature": 1.3, "top_k": 200, "top_p": 0.95, "seed": 12}
RUNS = (
    pytest.param(GREEDY, 1, id="greedy-1thread"),
    pytest.param(GREEDY, 2, id="greedy-2threads"),
    pytest.param(SAMPLED, 2, id="t0.7-2threads"),
    pytest.param(HOT, 1, id="t1.3-1thread"),
)


class Adversary(RandomTrees):
    """Random trees of up to 64 rows, with the right continuation for a few tokens grafted on half of the time."""

    def __init__(self, seed: int, answer: list[int], prompt_tokens: int) -> None:
        super().__init__(seed)
        self._oracle = Oracle(answer, 3, prompt_tokens)

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        super().begin(session, sequence, prompt)
        self._oracle.begin(session, sequence, prompt)

    def propose(self, context: DraftContext) -> Draft:
        random_tree = super().propose(context)
        return random_tree if self._random.random() < 0.5 else self._oracle.propose(context)


@cache
def _plain(model: Model, prompt: str, settings: tuple[tuple[str, float], ...]) -> tuple[list[int], int]:
    """Ids of plain decoding on two threads, and the prompt's length."""
    generation = model.generate(
        prompt, max_tokens=TOKENS, threads=2, ignore_end=True, **dict(settings)
    ).complete()
    return generation.ids, len(generation.prompt_ids)


def _check(model: Model, drafter: str, settings: dict[str, float], threads: int) -> None:
    accepted = 0
    for number, prompt in enumerate(PROMPTS):
        expected, prompt_tokens = _plain(model, prompt, tuple(settings.items()))
        chosen: str | Drafter = drafter
        if drafter == "adversary":
            chosen = Adversary(number, expected, prompt_tokens)
        generation = model.generate(
            prompt, max_tokens=TOKENS, threads=threads, ignore_end=True, drafter=chosen, **settings
        ).complete()
        assert generation.ids == expected, f"prompt {number}"
        accepted += generation.stats.accepted
    assert drafter == "none" or accepted > 0, "the drafter was never right: the test shows nothing"


@pytest.mark.real_model
@pytest.mark.parametrize(("settings", "threads"), RUNS)
@pytest.mark.parametrize(
    "drafter",
    (
        "none",
        "lookup",
        "lookup:min_ngram=1,branches=3",
        "auto",
        "feature:tokens=4",
        "self:layers=24,tokens=2",
        "self:skip=a27+f27+a28+f28,tokens=2",
        "adversary",
    ),
)
def test_ids_equal_plain_decoding(
    keep_model: Model, drafter: str, settings: dict[str, float], threads: int
) -> None:
    _check(keep_model, drafter, settings, threads)
