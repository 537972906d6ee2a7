"""Sequences through which a test goes at random: appended to, drafted on, left early, rewound, forked, saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from tiny_models import VOCABULARY_SIZE

from forerun.runtime.program import full_steps
from forerun.runtime.session import Session

STEPS = ("append", "append", "draft", "leave_early", "rewind", "fork", "save")


def append(session: Session, seq: int, token_ids: list[int], pieces: int = 256) -> np.ndarray:
    """Read a text in pieces; return the logits [n, V] of all its rows."""
    found = []
    for start in range(0, len(token_ids), pieces):
        rows = list(session.stage(seq, token_ids[start : start + pieces]))
        found.append(session.forward([(seq, row) for row in rows]).logits.copy())
        session.commit(seq, rows)
    return np.concatenate(found)


class History:
    """A sequence through which a test goes, and the tokens that its committed positions stand for."""

    def __init__(self, session: Session, folder: Path, data: st.DataObject) -> None:
        self.session, self.folder, self.data = session, folder, data
        self.context = session.config.context_length
        self.seq = session.create_sequence()
        self.ids: list[int] = []

    def draw_ids(self, most: int) -> list[int]:
        count = self.data.draw(st.integers(1, max(1, min(most, self.context - 64 - len(self.ids)))))
        seed = self.data.draw(st.integers(0, 2**31))
        return np.random.default_rng(seed).integers(0, VOCABULARY_SIZE, count).tolist()

    def append(self) -> None:
        ids = self.draw_ids(self.context // 3)
        append(self.session, self.seq, ids, self.data.draw(st.sampled_from([1 + len(ids) // 9, 64, 256])))
        self.ids += ids

    def draft(self) -> None:
        """Stage a tree, run it, keep a path."""
        ids = self.draw_ids(60)
        parents = [self.data.draw(st.integers(max(-1, i - 4), i - 1)) for i in range(len(ids))]
        rows = list(self.session.stage(self.seq, ids, parents))
        self.session.forward([(self.seq, row) for row in rows])
        path = [self.data.draw(st.sampled_from(rows))]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        self.session.commit(self.seq, path)
        self.ids += [ids[row] for row in path]

    def leave_early(self) -> None:
        """Rows that have not passed the last layer: a backlog."""
        ids, layers = self.draw_ids(self.context // 7), self.session.config.layers
        for start in range(0, len(ids), 256):
            rows = list(self.session.stage(self.seq, ids[start : start + 256]))
            steps = full_steps(layers)[: self.data.draw(st.integers(0, 2 * layers - 1))]
            self.session.forward([(self.seq, row) for row in rows], steps=steps, logits=())
            self.session.commit(self.seq, rows)
        self.ids += ids

    def rewind(self) -> None:
        kept = self.data.draw(st.integers(0, len(self.ids)))
        self.session.rewind(self.seq, kept)
        del self.ids[kept:]

    def fork(self) -> None:
        other = self.session.fork(self.seq)
        self.session.release_sequence(self.seq)
        self.seq = other

    def save(self) -> None:
        self.session.save(self.seq, self.folder / "saved")
        self.session.release_sequence(self.seq)
        self.seq = self.session.restore(self.folder / "saved")


def check_history(session: Session, folder: Path, data: st.DataObject) -> None:
    """Take a sequence through random steps: what comes next has the bits of a sequence that read it all in one go."""
    history, fresh = History(session, folder, data), session.create_sequence()
    try:
        for name in data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8)):
            if len(history.ids) < history.context * 4 // 5 or name == "rewind":
                getattr(history, name)()
        probe = history.draw_ids(40)
        found = append(session, history.seq, probe, pieces=17)
        expected = append(session, fresh, history.ids + probe)[-len(probe) :]
        assert found.tobytes() == expected.tobytes()
    finally:
        for each in (fresh, history.seq):
            session.release_sequence(each)


def check_draws(session: Session, count: int, rng: np.random.Generator) -> None:
    """Draw from `count` rows whose logits were not computed: the tokens are those drawn from all logits."""
    ids = rng.integers(0, VOCABULARY_SIZE, count).tolist()
    settings = [(0.0, 0, 1.0), (2.0, 0, 1.0), (0.8, 40, 0.95), (1.0, 1, 1.0), (1.0, 0, 0.9)]
    # Mostly one block beside the likeliest.
    settings += [(float(temperature), 0, 1.0) for temperature in np.linspace(0.02, 0.6, 30)]
    sequence = session.create_sequence()
    rows = [(sequence, row) for row in session.stage(sequence, ids)]
    logits = session.forward(rows).logits.copy()
    session.rewind(sequence, 0)
    session.stage(sequence, ids)
    drawable = session.forward(rows, draws=True).drawable
    for row in rng.permutation(count).tolist():
        for temperature, top_k, top_p in settings:
            numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": 5}
            drawn = session.draw(drawable[row], **numbers, position=row)
            assert drawn == session.sample(logits[row], **numbers, position=row), numbers
    session.release_sequence(sequence)
