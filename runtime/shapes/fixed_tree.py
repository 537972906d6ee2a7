"""A tree of fixed branching, as in Medusa and staged speculation (Spector and Re, 2023)."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.errors import OptionError
from forerun.runtime.protocol import Candidate


class FixedTree:
    """Every row of level i - 1 gets `branches[i - 1]` children: 3+2+1 has 3, then 6, then 6 rows."""

    name: ClassVar[str] = "tree"
    summary: ClassVar[str] = (
        "fixed branching: branches=3+2+1 gives each row of a level 3, then 2, then 1 children"
    )

    def __init__(self, branches: tuple[int, ...] = (2, 1, 1, 1)) -> None:
        if not branches or min(branches) < 1:
            shown = "+".join(map(str, branches)) or "empty"
            raise OptionError(
                f"shape 'tree': branches is {shown}; every number must be 1 or more, as in 3+2+1"
            )
        self.branches = branches
        self.depth = len(branches)

    def width(self, level: int) -> int:
        """The number given for this level."""
        return self.branches[level - 1]

    def select(
        self, level: int, candidates: Sequence[Candidate], reach: Sequence[float]
    ) -> tuple[list[Candidate], int]:
        """All first choices before all second ones, so that a limit drops the worst."""
        return sorted(candidates, key=lambda candidate: candidate.rank), len(candidates)
