"""Drafting with a `feature` network: a small decoder over the model's hidden states and the next token.

Rows of committed text hold the model's states; a drafted row holds what the network itself put out one row before
(EAGLE and EAGLE-3, Li et al., 2024 and 2025).
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from forerun.runtime.drafters.network import NetworkDrafter
from forerun.runtime.growth import GrowingTree, grow
from forerun.runtime.protocol import Candidate, Draft, DraftContext, Observation, Shape
from forerun.runtime.tree import root_only


class FeatureDrafter(NetworkDrafter):
    """Drafts `tokens` in a chain, or as a shape says, and stops where its own probability is below `threshold`."""

    name: ClassVar[str] = "feature"
    summary: ClassVar[str] = "the bundle's feature network: a decoder layer on the model's hidden states"
    lag: ClassVar[int] = 1

    def __init__(self, tokens: int = 4, threshold: float = 0.0, shape: Shape | None = None) -> None:
        super().__init__(tokens, threshold, shape)

    def observe(self, observation: Observation) -> None:
        """Rows of the network for the rows that were committed, if their states are known."""
        if not self.taps or self.taps[0] not in observation.taps:
            self._following.miss()
            return
        size = self._hidden_size
        features = np.zeros((len(observation.token_ids), size * (len(self.taps) + 1)), np.float32)
        for place, tap in enumerate(self.taps, start=1):
            features[:, place * size : (place + 1) * size] = observation.taps[tap]
        self._follow(observation, features)

    def propose(self, context: DraftContext) -> Draft:
        """Grow a tree, a forward of the network for each level."""
        if context.depth_limit < 1 or context.row_limit < 2 or not self._following.awaits_root:
            return Draft(root_only(context.root))
        outputs: dict[int, np.ndarray] = {}  # row of the tree → the network's output there
        staged = {0: -1}  # row of the tree → row staged in the network's session, where the root is committed

        def offer(tree: GrowingTree, rows: Sequence[int], width: int) -> list[Candidate]:
            if list(rows) == [0]:
                logits, states = self._run_root(context.root)
            else:
                logits, states = self._run_level(tree, rows, outputs, staged)
            outputs.update((row, states[index].copy()) for index, row in enumerate(rows))
            return self._children(context, tree, rows, logits, width)

        tree = grow(context.root, self.shape, context.row_limit, context.depth_limit, offer)
        self._draft.session.commit(self._sequence, ())
        return Draft(tree)

    def _run_root(self, root: int) -> tuple[np.ndarray, np.ndarray]:
        """Run the rows that wait and the root's; the root's logits [1, V] and output [1, D]."""
        session = self._draft.session
        staged = self._following.stage(root)
        last = session.config.layers - 1
        rows = [(self._sequence, row) for row in staged]
        result = session.forward(rows, logits=(len(rows) - 1,), taps=(last,))
        outputs = result.logits, result.taps[last][-1:]
        self._following.keep(staged)
        return outputs

    def _run_level(
        self,
        tree: GrowingTree,
        rows: Sequence[int],
        outputs: dict[int, np.ndarray],
        staged: dict[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run drafted rows; their logits [rows, V] and outputs [rows, D]."""
        draft, session = self._draft, self._draft.session
        features = np.zeros((len(rows), session.config.feature_size), np.float32)
        for index, row in enumerate(rows):
            features[index, : self._hidden_size] = outputs[tree.parents[row]]
        token_ids = draft.vocabulary.draft_ids[[tree.token_ids[row] for row in rows]]
        parents = [staged[tree.parents[row]] for row in rows]
        places = session.stage(self._sequence, token_ids.tolist(), parents, features=features)
        staged.update(zip(rows, places, strict=True))
        last = session.config.layers - 1
        result = session.forward([(self._sequence, row) for row in places], taps=(last,))
        return result.logits, result.taps[last]
