"""No early exit."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.runtime.protocol import Evidence


class Never:
    """Every row passes all layers."""

    name: ClassVar[str] = "never"
    summary: ClassVar[str] = "every row passes all layers"
    wants_hidden: ClassVar[bool] = False

    def points(self, layers: int) -> tuple[int, ...]:
        """Nowhere."""
        return ()

    def leaving(self, evidence: Evidence) -> Sequence[bool]:
        """Nobody."""
        return [False] * len(evidence.positions)
