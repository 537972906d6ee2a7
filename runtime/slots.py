"""The sequences of a model's session: which answer has which, and what the cache holds of earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forerun.errors import OptionError, SequencesBusyError
from forerun.runtime.generate import Run
from forerun.runtime.prefix import common_prefix
from forerun.runtime.protocol import SessionLike


@dataclass
class Slot:
    """One sequence of the session and the tokens whose rows its cache holds."""

    sequence: int
    token_ids: list[int] = field(default_factory=list)
    is_busy: bool = False


class Slots:
    """All sequences of a session. One thread at a time, like the session."""

    def __init__(self, session: SessionLike, count: int) -> None:
        self._session = session
        self._slots = [Slot(session.create_sequence()) for _ in range(count)]

    @property
    def is_busy(self) -> bool:
        """Whether any answer is under way."""
        return any(slot.is_busy for slot in self._slots)

    def lease(self, token_ids: Sequence[int], reuse_cache: bool) -> Slot:
        """Take the free sequence whose cache shares the most with a prompt, rewound to what they share."""
        slot = max(self._free(), key=lambda candidate: common_prefix(candidate.token_ids, token_ids))
        # The last row of the prompt is run in any case: its logits draw the first token.
        shared = min(common_prefix(slot.token_ids, token_ids), len(token_ids) - 1)
        kept = shared if reuse_cache else 0
        self._session.rewind(slot.sequence, kept)
        slot.token_ids = slot.token_ids[:kept]
        slot.is_busy = True
        return slot

    def give_back(self, slot: Slot, run: Run, sound: bool) -> None:
        """Remember what the cache holds; after a failed step it is emptied, as rows may be half done."""
        slot.is_busy = False
        if not sound:
            self._session.rewind(slot.sequence, 0)
        slot.token_ids = run.token_ids[: self._session.length(slot.sequence)]

    def save(self, run: Run, path: Path) -> None:
        """Write the rows that the cache holds of an ended answer and its prompt to a file."""
        slot = next(slot for slot in self._slots if slot.sequence == run.sequence)
        if slot.is_busy or not slot.token_ids or slot.token_ids != run.token_ids[: len(slot.token_ids)]:
            raise OptionError(
                "the cache no longer holds this answer, or does not hold it yet; save an answer after its end"
                " and before others take its sequence, or load the model with more sequences"
            )
        self._session.save(slot.sequence, path)

    def restore(self, path: Path) -> list[int]:
        """Read a file into the free sequence that holds the least; returns the token ids of its rows."""
        slot = min(self._free(), key=lambda candidate: len(candidate.token_ids))
        slot.token_ids = []
        self._session.release_sequence(slot.sequence)
        try:
            slot.sequence = self._session.restore(path)
        except BaseException:
            slot.sequence = self._session.create_sequence()
            raise
        slot.token_ids = self._session.token_ids(slot.sequence)
        return list(slot.token_ids)

    def _free(self) -> list[Slot]:
        free = [slot for slot in self._slots if not slot.is_busy]
        if not free:
            raise SequencesBusyError(
                f"all {len(self._slots)} sequences have an answer under way; finish or close one,"
                " or load the model with more sequences"
            )
        return free
