"""The draft networks of a bundle, opened when a drafter first asks for one.

Each runs in a session of its own, on the team of the model's session and with as many sequences: what is drafted for
sequence s of the model is kept in sequence s of the draft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forerun.errors import OptionError
from forerun.runtime.bundle import DraftInfo
from forerun.runtime.costs import KeptCosts
from forerun.runtime.drafters.following import Followed
from forerun.runtime.drafters.offers import DraftVocabulary
from forerun.runtime.planner import Planner
from forerun.runtime.session import LoadedProgram, Session


@dataclass
class OpenDraft:
    """A draft network ready to run. `followed[s]` says what the rows of sequence s stand for, as the drafter that ran
    there last left them."""

    info: DraftInfo
    session: Session
    vocabulary: DraftVocabulary
    followed: dict[int, Followed] = field(default_factory=dict)


class Drafts:
    """The drafts of a model's session by name, and what is known of them."""

    def __init__(self, session: Session, program: LoadedProgram, infos: Mapping[str, DraftInfo]) -> None:
        """`infos` are what the manifest of the model's bundle says of them."""
        # Which file the costs are in takes reading others: not before they are asked for.
        self.planner = Planner(lambda: KeptCosts.of(program.path, session.threads))
        self._session, self._program, self._infos = session, program, infos
        self._open: dict[str, OpenDraft] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What the bundle has."""
        return tuple(self._infos)

    def open(self, name: str) -> OpenDraft:
        """Open a draft, once. Raises `OptionError` if the bundle has none of this name, `BundleError` if it is damaged
        and `TargetError` if it was not compiled for the session's target."""
        if name not in self._infos:
            has = f"it has {', '.join(self._infos)}" if self._infos else "it has none"
            raise OptionError(f"this bundle has no draft {name!r}; {has} (forerun compile --draft adds them)")
        if name not in self._open:
            self._open[name] = self._load(self._infos[name])
        return self._open[name]

    def _load(self, info: DraftInfo) -> OpenDraft:
        model = self._session
        program = LoadedProgram(info.path, self._program.target)
        session = Session(program, sequences=model.sequences, capacity=model.capacity, team_of=model)
        for _ in range(model.sequences):
            session.create_sequence()
        vocabulary = DraftVocabulary.of(info.read_vocabulary(), model.config.vocabulary_size)
        return OpenDraft(info, session, vocabulary)

    def close(self) -> None:
        """Close all sessions."""
        for draft in self._open.values():
            draft.session.close()
        self._open = {}
