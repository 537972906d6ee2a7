"""From a draft's logits to the candidates below a row: what every drafter with a network does."""

from dataclasses import dataclass

import numpy as np

from forerun.errors import OptionError
from forerun.runtime.protocol import Candidate, DraftContext


@dataclass(frozen=True)
class Place:
    """A row of a growing tree that children are wanted for: up to `width` of them."""

    row: int
    depth: int
    width: int


@dataclass(frozen=True)
class DraftVocabulary:
    """Which tokens a draft's logits speak of: `token_ids` int32 [V - 1] are the model's ids of all draft ids but the
    last, which stands for every other token. `draft_ids` int32 [model's V] is the way back."""

    token_ids: np.ndarray
    draft_ids: np.ndarray

    @staticmethod
    def of(token_ids: np.ndarray, model_size: int) -> "DraftVocabulary":
        """Both ways, from one."""
        draft_ids = np.full(model_size, len(token_ids), np.int32)
        draft_ids[token_ids] = np.arange(len(token_ids), dtype=np.int32)
        return DraftVocabulary(token_ids, draft_ids)


def check_options(drafter: str, threshold: float, tokens: int = 1) -> None:
    """Raise `OptionError` for a chain of no tokens, or a threshold that is no probability."""
    if not 0 <= threshold <= 1:
        raise OptionError(f"drafter {drafter!r}: threshold is {threshold}; it must be between 0 and 1")
    if tokens < 1:
        raise OptionError(f"drafter {drafter!r}: tokens is {tokens}; it must be 1 or more")


def offer_children(
    context: DraftContext,
    place: Place,
    logits: np.ndarray,
    threshold: float,
    vocabulary: DraftVocabulary | None = None,
) -> list[Candidate]:
    """The best children of a row with draft logits [V] whose probability reaches the threshold.

    Drawn with the noise that the loop will draw with, so the first is what these logits would draw if it is among the
    tokens that the draft can name.
    """
    position = len(context.token_ids) + place.depth
    ids = None if vocabulary is None else vocabulary.token_ids
    ranked = context.session.rank(logits, place.width, context.sampling, position, ids)
    return [
        Candidate(place.row, index if ids is None else int(ids[index]), rank, probability)
        for rank, (index, probability) in enumerate(ranked)
        if probability >= threshold
    ]
