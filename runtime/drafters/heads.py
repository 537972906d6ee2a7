"""Drafting with `heads`: independent heads on the model's last hidden state (Stern et al., 2018; Cai et al., 2024).

Head h speaks of the token h places after the one that the model itself draws there. None of them sees what the others
say, so in a tree every row of a level is offered the same children.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from forerun.runtime.drafters.offers import Place, check_options, offer_children
from forerun.runtime.growth import GrowingTree, grow
from forerun.runtime.protocol import Candidate, Draft, DraftContext, Observation, SessionLike, Shape
from forerun.runtime.session import Step
from forerun.runtime.shapes.chain import Chain
from forerun.runtime.tree import root_only

if TYPE_CHECKING:
    from forerun.runtime.drafts import OpenDraft


class HeadsDrafter:
    """Drafts a token from each head, or as many as a shape says; stops where a probability is below `threshold`."""

    name: ClassVar[str] = "heads"
    summary: ClassVar[str] = "the bundle's parallel heads on the model's last hidden state"

    def __init__(self, threshold: float = 0.0, shape: Shape | None = None) -> None:
        check_options(self.name, threshold)
        self.taps: tuple[int, ...] = ()
        self._threshold = threshold
        self.shape: Shape | None = shape

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Open the heads; raises `OptionError` if the bundle has none."""
        self._draft: OpenDraft = session.drafts.open(self.name)
        self._sequence = sequence
        self.taps = self._draft.info.taps
        self._heads = self._draft.info.heads
        self._draft.session.rewind(sequence, 0)
        self._state: np.ndarray | None = None

    def observe(self, observation: Observation) -> None:
        """The state of the last row is all that they read; a row that left the model early has none."""
        states = observation.taps.get(self.taps[0])
        is_known = states is not None and bool(np.isfinite(states[-1:]).all())
        self._state = states[-1:].copy() if states is not None and is_known else None

    def propose(self, context: DraftContext) -> Draft:
        """Run one head a level."""
        if self._state is None or context.depth_limit < 1 or context.row_limit < 2:
            return Draft(root_only(context.root))
        state = self._state

        def offer(tree: GrowingTree, rows: Sequence[int], width: int) -> list[Candidate]:
            depth = tree.depths[rows[0]]
            logits = self._run_head(depth, state)
            offers = []
            for row in rows:
                place = Place(row, depth, width)
                offers += offer_children(context, place, logits, self._threshold, self._draft.vocabulary)
            return offers

        depth_limit = min(context.depth_limit, self._heads)
        tree = grow(context.root, self.shape or Chain(self._heads), context.row_limit, depth_limit, offer)
        self._draft.session.commit(self._sequence, ())
        return Draft(tree)

    def _run_head(self, head: int, state: np.ndarray) -> np.ndarray:
        """Logits [V] of a head on a state [1, D]."""
        session = self._draft.session
        depth = session.config.layers // self._heads
        steps = [Step("feed_forward", layer) for layer in range(head * depth, (head + 1) * depth)]
        row = session.stage_hidden(self._sequence, state, parents=[-1])[0]
        logits: np.ndarray = session.forward([(self._sequence, row)], steps=steps).logits[0]
        return logits
