"""Draft networks over scripted sessions: what a bundle's drafts are to the drafters, without a compiled program."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scripted import ScriptedConfig, ScriptedSession

from forerun.errors import OptionError
from forerun.runtime.drafters.following import Followed
from forerun.runtime.drafters.offers import DraftVocabulary
from forerun.runtime.planner import Planner

TAPS = {"feature": (0, 3), "heads": (3,), "exit": (1,)}
LAYERS = {"feature": 1, "heads": 3, "exit": 1}


@dataclass(frozen=True)
class DraftSessionConfig(ScriptedConfig):
    feature_size: int = 0


@dataclass(frozen=True)
class Info:
    taps: tuple[int, ...]
    heads: int


class DraftSession(ScriptedSession):
    """Rows are tokens with features, or hidden states, whose tokens are then made up from them."""

    config: DraftSessionConfig

    def stage(
        self,
        seq: int,
        token_ids: Sequence[int],
        parents: Sequence[int] | None = None,
        features: np.ndarray | None = None,
    ) -> range:
        assert features is not None, "this network's tokens come with features"
        assert features.shape == (len(token_ids), self.config.feature_size)
        assert np.isfinite(features).all()
        return super().stage(seq, token_ids, parents)

    def stage_hidden(
        self, seq: int, hidden: np.ndarray, *, start: int = 0, parents: Sequence[int] | None = None
    ) -> range:
        assert hidden.shape[1] == self.config.hidden_size and np.isfinite(hidden).all()
        made_up = [int(abs(float(row.sum())) * 997) % self.config.vocabulary_size for row in hidden]
        return super().stage(seq, made_up, parents)


@dataclass
class ScriptedDraft:
    info: Info
    session: DraftSession
    vocabulary: DraftVocabulary
    followed: dict[int, Followed] = field(default_factory=dict)


class ScriptedDrafts:
    """All three kinds, for a scripted session."""

    def __init__(self, session: ScriptedSession, names: Sequence[str] = tuple(TAPS)) -> None:
        self.names = tuple(names)
        self.planner = Planner()
        self._model = session
        self._open: dict[str, ScriptedDraft] = {}

    def open(self, name: str) -> ScriptedDraft:
        if name not in self.names:
            raise OptionError(f"no draft {name!r}")
        if name not in self._open:
            self._open[name] = self._load(name)
        return self._open[name]

    def _load(self, name: str) -> ScriptedDraft:
        model, size = self._model.config, self._model.config.hidden_size
        config = DraftSessionConfig(
            LAYERS[name],
            size,
            model.vocabulary_size,
            model.max_rows,
            model.max_gather,
            feature_size=size * (len(TAPS[name]) + 1) if name == "feature" else 0,
        )
        session = DraftSession(config, capacity=self._model.capacity, sequences=8)
        for _ in range(8):
            session.create_sequence()
        # The model's own ids but its last, which has no draft id.
        vocabulary = DraftVocabulary.of(
            np.arange(model.vocabulary_size - 1, dtype=np.int32), model.vocabulary_size
        )
        return ScriptedDraft(Info(TAPS[name], 3 if name == "heads" else 1), session, vocabulary)

    def close(self) -> None:
        self._open = {}
