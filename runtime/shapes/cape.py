"""A chain with siblings where the draft is unsure (CaPE, of GliDe with a CaPE, Du et al., 2024)."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.errors import OptionError
from forerun.runtime.protocol import Candidate


class Cape:
    """A chain of up to `tokens` tokens. A token of probability p has round(`siblings` · (1 - p)) siblings beside it,
    the next likeliest; they get no children.
    """

    name: ClassVar[str] = "cape"
    summary: ClassVar[str] = "a chain with siblings beside the tokens that the draft is unsure of"

    def __init__(self, tokens: int = 4, siblings: int = 3) -> None:
        if tokens < 1 or siblings < 0:
            raise OptionError(
                f"shape 'cape': tokens is {tokens} and siblings {siblings}; allowed: from 1 and from 0"
            )
        self.depth = tokens
        self._siblings = siblings

    def width(self, level: int) -> int:
        """The token and all the siblings it may have."""
        return 1 + self._siblings

    def select(
        self, level: int, candidates: Sequence[Candidate], reach: Sequence[float]
    ) -> tuple[list[Candidate], int]:
        """The first candidate, with more beside it the less likely it is; only the first gets children."""
        if not candidates:
            return [], 0
        siblings = round(self._siblings * (1 - candidates[0].probability))
        return list(candidates[: 1 + siblings]), 1
