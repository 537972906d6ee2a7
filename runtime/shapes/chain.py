"""A chain: one token after another."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.errors import OptionError
from forerun.runtime.protocol import Candidate


class Chain:
    """Up to `tokens` drafted tokens, each the only child of the one before."""

    name: ClassVar[str] = "chain"
    summary: ClassVar[str] = "one token after another, no branches"

    def __init__(self, tokens: int = 4) -> None:
        if tokens < 1:
            raise OptionError(f"shape 'chain': tokens is {tokens}; it must be 1 or more")
        self.depth = tokens

    def width(self, level: int) -> int:
        """One child each."""
        return 1

    def select(
        self, level: int, candidates: Sequence[Candidate], reach: Sequence[float]
    ) -> tuple[list[Candidate], int]:
        """The first candidate."""
        return list(candidates[:1]), 1
