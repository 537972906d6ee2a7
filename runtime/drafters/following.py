"""A draft network's cache kept in step with the model's: its rows are made of the model's hidden states, which come
with every observation.

Rows wait in a backlog until the next draft needs them, so that they share its first forward. Of a long prompt, or a
time without drafts, only the last rows are run: what a draft does not see costs hits, never a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from forerun.runtime.prefix import common_prefix

if TYPE_CHECKING:
    from forerun.runtime.drafts import OpenDraft

# Rows that wait at most; older ones are dropped. They would all be run by the first draft, which has to be quick.
REMEMBERED = 64


@dataclass
class Followed:
    """What the rows of one sequence of a draft stand for: the model's text and the position of each row in it."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


@dataclass
class Backlog:
    """Rows that the draft has not seen: their positions, tokens (unless rows are hidden states alone) and states."""

    positions: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.positions)

    def drop_but(self, count: int) -> None:
        """Keep the last `count` rows."""
        for rows in (self.positions, self.token_ids, self.states):
            del rows[:-count]


class Following:
    """One sequence of a draft. `lag` is how many tokens after its own position a row knows: 1 for rows that hold the
    next token, 0 for rows that are hidden states alone."""

    def __init__(self, draft: OpenDraft, sequence: int, prompt: Sequence[int], cached: int, lag: int) -> None:
        """Keep the rows that are of this text: the prompt, of which the model has `cached` rows already."""
        self._session, self._sequence, self._lag = draft.session, sequence, lag
        self._vocabulary = draft.vocabulary
        self._followed = draft.followed.setdefault(sequence, Followed())
        shared = common_prefix(self._followed.token_ids, prompt)
        kept = [at for at in self._followed.positions if at + lag < shared and at < cached]
        self._followed.positions = kept
        self._followed.token_ids = list(prompt[:cached])
        self._session.rewind(sequence, len(kept))
        self._backlog = Backlog()
        self._unpaired: tuple[int, np.ndarray] | None = None  # the last row, whose next token is to come

    def add(self, start: int, token_ids: Sequence[int], states: np.ndarray) -> None:
        """The model committed rows at positions `start`, … with these tokens and states [rows, F] float32, which are
        taken over."""
        # A row that left the model early has no states further up.
        states = np.nan_to_num(states, copy=False)
        followed = self._followed
        if start > len(followed.token_ids):  # rows were missed: what they held does not matter to later ones
            followed.token_ids += [-1] * (start - len(followed.token_ids))
        del followed.token_ids[start:]
        followed.token_ids += token_ids
        if self._lag == 0:
            self._wait(range(start, start + len(token_ids)), token_ids, states)
        else:
            if self._unpaired is not None:
                position, state = self._unpaired
                self._wait([position], token_ids[:1], state[None])
            self._wait(range(start, start + len(token_ids) - 1), token_ids[1:], states[:-1])
            self._unpaired = (start + len(token_ids) - 1, states[-1])

    def miss(self) -> None:
        """Rows were committed whose states are not known: what waits would not follow on."""
        self._backlog = Backlog()
        self._unpaired = None

    @property
    def awaits_root(self) -> bool:
        """Whether there is a row that only the root's token is missing from; not before the model ran its first."""
        return self._unpaired is not None

    def stage(self, root: int) -> range:
        """Stage all rows that wait and, with a lag, the one of the root, which is drawn but not committed."""
        if self._unpaired is not None:
            position, state = self._unpaired
            self._wait([position], [root], state[None])
            self._unpaired = None
        return self._stage()

    def keep(self, staged: Sequence[int]) -> None:
        """Commit what `stage` staged, once it has run."""
        self._session.commit(self._sequence, staged)
        self._followed.positions += self._backlog.positions
        self._backlog = Backlog()

    def catch_up(self) -> None:
        """Run and commit all rows that wait."""
        staged = self._stage()
        if staged:
            self._session.forward([(self._sequence, row) for row in staged], logits=())
            self.keep(staged)

    def _wait(self, positions: Sequence[int], token_ids: Sequence[int], states: np.ndarray) -> None:
        self._backlog.positions += positions
        self._backlog.token_ids += token_ids
        self._backlog.states += list(states)
        self._backlog.drop_but(min(REMEMBERED, self._session.config.max_rows))

    def _stage(self) -> range:
        if not len(self._backlog):
            return range(0)
        states = np.stack(self._backlog.states)
        if self._lag == 0:
            return self._session.stage_hidden(self._sequence, states)
        token_ids = self._vocabulary.draft_ids[self._backlog.token_ids]
        return self._session.stage(self._sequence, token_ids.tolist(), features=states)
