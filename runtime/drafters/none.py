"""Plain decoding: nothing is proposed."""

from collections.abc import Sequence
from typing import ClassVar

from forerun.runtime.protocol import Draft, DraftContext, Observation, SessionLike
from forerun.runtime.tree import root_only


class NoDrafter:
    """Every verify call carries one row."""

    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "plain decoding"
    taps: tuple[int, ...] = ()

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Nothing to prepare."""

    def propose(self, context: DraftContext) -> Draft:
        """The root alone."""
        return Draft(root_only(context.root))

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""
