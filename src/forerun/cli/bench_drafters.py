"""Drafters for measuring alone: rows by number, and drafts that are right as often as they are told to be."""

import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from forerun.errors import OptionError
from forerun.registry import Registry
from forerun.runtime.protocol import Draft, DraftContext, Observation, SessionLike
from forerun.runtime.specs import drafts_in_shapes, make_drafter
from forerun.runtime.tree import Tree

COIN = "coin"


class Coin:
    """Drafts `tokens` tokens of an answer that is known already, each right with the chance `rate`; free of cost.

    After a wrong one the rest is drafted all the same, as a real draft would be.
    """

    name: ClassVar[str] = COIN
    summary: ClassVar[str] = "the known answer's tokens, right by the throw of a coin; for bench alone"
    taps: tuple[int, ...] = ()

    def __init__(self, rate: float = 0.7, tokens: int = 3, seed: int = 0) -> None:
        if not 0 <= rate <= 1:
            raise OptionError(f"drafter 'coin': rate is {rate}; it must be between 0 and 1")
        if tokens < 1:
            raise OptionError(f"drafter 'coin': tokens is {tokens}; it must be 1 or more")
        self.answer: Sequence[int] = ()
        self._rate, self._tokens, self._seed = rate, tokens, seed

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """The same throws for every answer."""
        self._random = random.Random(self._seed)
        self._prompt_tokens = len(prompt)
        self._vocabulary_size = session.config.vocabulary_size

    def propose(self, context: DraftContext) -> Draft:
        """A chain."""
        drawn = len(context.token_ids) - self._prompt_tokens
        tokens = [context.root]
        for token_id in self.answer[drawn : drawn + self._tokens]:
            is_right = self._random.random() < self._rate
            tokens.append(token_id if is_right else (token_id + 1) % self._vocabulary_size)
        tree = Tree(tuple(tokens), tuple(range(-1, len(tokens) - 1)))
        return Draft(tree.limited(context.row_limit, context.depth_limit))

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""


class FixedRows:
    """Proposes a chain of filler tokens so that every verify call carries `rows` rows, for `calls` calls."""

    name: ClassVar[str] = "fixed-rows"
    summary: ClassVar[str] = "filler, for timing"
    taps: tuple[int, ...] = ()

    def __init__(self, rows: int, calls: int) -> None:
        self.calls_left = calls
        self.on_last_call: Callable[[], None] | None = None
        self._rows = rows

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Nothing to prepare."""

    def propose(self, context: DraftContext) -> Draft:
        """The last tokens of the text again: any tokens will do."""
        filler = [context.token_ids[-1 - index % len(context.token_ids)] for index in range(self._rows - 1)]
        self.calls_left -= 1
        if self.calls_left == 0 and self.on_last_call is not None:
            self.on_last_call()
        return Draft(Tree((context.root, *filler), tuple(range(-1, self._rows - 1))))

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""


def options_for(spec: str, shape: str | None, answer: Sequence[int]) -> dict[str, Any]:
    """What `generate` takes for a drafter's spec: in the shape if it drafts in one; a coin knows the answer.

    Raises `OptionError` for a spec that describes no drafter.
    """
    if spec.partition(":")[0].strip() == COIN:
        coin = Registry("drafter", (Coin,)).create(spec)
        coin.answer = answer
        return {"drafter": coin}
    chosen = shape if drafts_in_shapes(spec) else None
    make_drafter(spec, chosen)
    return {"drafter": spec, "shape": chosen}
