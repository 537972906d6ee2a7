"""What drafters have in common that run a network of the bundle over the text, a forward for each level of a tree."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from forerun.runtime.drafters.following import Following
from forerun.runtime.drafters.offers import Place, check_options, offer_children
from forerun.runtime.growth import GrowingTree
from forerun.runtime.protocol import Candidate, DraftContext, Observation, SessionLike, Shape
from forerun.runtime.shapes.chain import Chain

if TYPE_CHECKING:
    from forerun.runtime.drafts import OpenDraft


class NetworkDrafter:
    """A drafter with the network of its own name. `lag` is how many tokens after its position a row knows."""

    name: ClassVar[str]
    lag: ClassVar[int]

    def __init__(self, tokens: int, threshold: float, shape: Shape | None) -> None:
        check_options(self.name, threshold, tokens)
        self.taps: tuple[int, ...] = ()
        self.shape: Shape = shape or Chain(tokens)
        self._threshold = threshold

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        """Open the network; raises `OptionError` if the bundle has none."""
        self._draft: OpenDraft = session.drafts.open(self.name)
        self.taps = self._draft.info.taps
        self._sequence = sequence
        self._prompt_tokens = len(prompt)
        self._hidden_size = session.config.hidden_size
        self._following = Following(self._draft, sequence, prompt, session.length(sequence), self.lag)

    def _follow(self, observation: Observation, states: np.ndarray) -> None:
        """Take over the rows that the model committed. The end of the prompt is run at once, as the model's own rows
        are: a first draft is then as quick as the others."""
        self._following.add(observation.start, observation.token_ids, states)
        read = observation.start + len(observation.token_ids)
        if observation.draft is None and read == self._prompt_tokens:
            self._following.catch_up()

    def _children(
        self, context: DraftContext, tree: GrowingTree, rows: Sequence[int], logits: np.ndarray, width: int
    ) -> list[Candidate]:
        """Candidates below rows with draft logits [rows, V]."""
        offers = []
        for index, row in enumerate(rows):
            place = Place(row, tree.depths[row], width)
            offers += offer_children(context, place, logits[index], self._threshold, self._draft.vocabulary)
        return offers
