"""A tree grown by draft probability (DySpec, Xiong et al., 2024): a row is drafted if its whole path is likely."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.errors import OptionError
from forerun.runtime.protocol import Candidate


class Grown:
    """Up to `rows` rows whose path has a draft probability of `reach` at least, the likeliest first; the `beam`
    likeliest of a level get children, `width` each.

    Growing by level rather than row by row runs the draft once a level; with a bound on the probability the result is
    the same but for the rows that a limit cuts.
    """

    name: ClassVar[str] = "grown"
    summary: ClassVar[str] = "a tree of the likeliest paths, by the draft's own probabilities"

    def __init__(
        self, rows: int = 16, tokens: int = 6, width: int = 4, beam: int = 4, reach: float = 0.1
    ) -> None:
        if rows < 1 or tokens < 1 or width < 1 or beam < 1:
            raise OptionError(
                f"shape 'grown': rows is {rows}, tokens {tokens}, width {width}, beam {beam}; all must be 1 or more"
            )
        if not 0 <= reach <= 1:
            raise OptionError(f"shape 'grown': reach is {reach}; it must be between 0 and 1")
        self.depth = tokens
        self._rows, self._width, self._beam, self._reach = rows, width, beam, reach

    def width(self, level: int) -> int:
        """The same at every level."""
        return self._width

    def select(
        self, level: int, candidates: Sequence[Candidate], reach: Sequence[float]
    ) -> tuple[list[Candidate], int]:
        """Those likely enough, as far as there is room."""
        likely = [(reach[one.parent] * one.probability, one) for one in candidates]
        kept = sorted((pair for pair in likely if pair[0] >= self._reach), key=lambda pair: -pair[0])
        room = max(self._rows - (len(reach) - 1), 0)
        return [one for _, one in kept[:room]], self._beam
