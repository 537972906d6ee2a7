"""Drafting with an `exit` adapter: the model's first layers and a small trained one draft in place of the others.

The verify call goes on from the model's layers that the draft ran (Kangaroo, Liu et al., 2024). Drafting ends early
where the adapter is unsure.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from forerun.runtime.drafters.network import NetworkDrafter
from forerun.runtime.growth import Expanded, GrowingTree, grow
from forerun.runtime.protocol import Candidate, Draft, DraftContext, Observation, SessionLike, Shape
from forerun.runtime.session import full_steps
from forerun.runtime.tree import root_only


class ExitDrafter(NetworkDrafter):
    """Drafts `tokens` in a chain, or as a shape says, and stops where its own probability is below `threshold`."""

    name: ClassVar[str] = "exit"
    summary: ClassVar[str] = (
        "the model's first layers and the bundle's exit adapter; verifying goes on from them"
    )
    lag: ClassVar[int] = 0

    def __init__(self, tokens: int = 4, threshold: float = 0.4, shape: Shape | None = None) -> None:
        super().__init__(tokens, threshold, shape)

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Open the adapter; raises `OptionError` if the bundle has none."""
        super().begin(session, sequence, prompt)
        self._steps = full_steps(session.config.layers)[: 2 * (self.taps[0] + 1)]

    def observe(self, observation: Observation) -> None:
        """Rows of the adapter for the rows that were committed."""
        if self.taps[0] not in observation.taps:
            self._following.miss()
            return
        states = observation.taps[self.taps[0]].copy()
        self._follow(observation, states)

    def propose(self, context: DraftContext) -> Draft:
        """Grow a tree: the model's first layers, then the adapter, for each level."""
        if context.depth_limit < 1 or context.row_limit < 2:
            return Draft(root_only(context.root))
        self._following.catch_up()
        expanded = Expanded()

        def offer(tree: GrowingTree, rows: Sequence[int], width: int) -> list[Candidate]:
            logits = self._run_level(context, tree, rows, expanded)
            return self._children(context, tree, rows, logits, width)

        tree = grow(context.root, self.shape, context.row_limit, context.depth_limit, offer)
        self._draft.session.commit(self._sequence, ())
        if len(self._steps) > context.reusable_sublayers:
            context.session.commit(context.sequence, ())
            return Draft(tree)
        # The last level was proposed but not run: it is not staged yet.
        return Draft(expanded.first(tree), done=(len(self._steps),) * len(expanded.rows))

    def _run_level(
        self, context: DraftContext, tree: GrowingTree, rows: Sequence[int], expanded: Expanded
    ) -> np.ndarray:
        """Stage rows in the model, run its first layers and the adapter; the adapter's logits [rows, V]."""
        session, own, tap = context.session, self._draft.session, self.taps[0]
        parents, places = expanded.add(tree, rows)
        session.stage(context.sequence, [tree.token_ids[row] for row in rows], parents)
        listed = [(context.sequence, place) for place in places]
        states = session.forward(listed, steps=self._steps, logits=(), taps=(tap,)).taps[tap]
        own.stage_hidden(self._sequence, states, parents=parents)
        logits: np.ndarray = own.forward([(self._sequence, place) for place in places]).logits
        return logits
