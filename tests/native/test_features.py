"""Rows that come with features, and programs that embed nothing."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from reference import Reference, assert_same
from test_state_machine import Walk
from tiny_model import HIDDEN, MAX_ROWS, VOCABULARY, compile_program, make_bundle, make_weights

from forerun.errors import RuntimeFailure
from forerun.runtime.library import Status, load_library
from forerun.runtime.session import LoadedProgram, Session

FEATURES = 5
# What comes with each token, so that a path of tokens says everything about its rows.
TABLE = np.random.default_rng(3).standard_normal((VOCABULARY, FEATURES)).astype(np.float32)


class FeatureSession(Session):
    """Stages every token with its features of `TABLE`."""

    def stage(
        self,
        seq: int,
        token_ids: Sequence[int],
        parents: Sequence[int] | None = None,
        features: np.ndarray | None = None,
    ) -> range:
        return super().stage(seq, token_ids, parents, TABLE[list(token_ids)])


class FeatureWalk(Walk):
    """The walk of the state machine; rows that wait with features are limited."""

    session_class = FeatureSession

    def waiting(self) -> dict[int, int]:
        """By sequence, the rows that have not been embedded."""
        return {
            number: track.depths.count(0) + sum(row.done == 0 for row in track.staged)
            for number, track in self.tracks.items()
        }

    def stage(self) -> None:
        before = max(self.waiting().values())
        try:
            super().stage()
        except RuntimeFailure as error:
            assert "wait to be computed" in str(error)
            assert before + 5 > MAX_ROWS
        assert max(self.waiting().values()) <= MAX_ROWS

    def draft_and_drop(self) -> None:
        if max(self.waiting().values()) + 2 <= MAX_ROWS:
            super().draft_and_drop()


def load(folder: Path, *options: str) -> LoadedProgram:
    library = compile_program(folder / "tiny.so", *options)
    return LoadedProgram(make_bundle(folder / "bundle", library, make_weights()))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> LoadedProgram:
    """The tiny decoder whose tokens come with features."""
    return load(tmp_path_factory.mktemp("features"), f"-DTINY_FEATURES={FEATURES}")


@pytest.fixture(scope="module")
def truth(program: LoadedProgram) -> Reference:
    return Reference(program, FeatureSession)


@pytest.mark.parametrize("seed", range(16))
def test_long_walks(program: LoadedProgram, truth: Reference, seed: int) -> None:
    walk = FeatureWalk(program, truth, Random(seed))
    for _ in range(150):
        walk.step()


def test_features_reach_their_rows(program: LoadedProgram, truth: Reference) -> None:
    """Each row of a tree has its own: those of the same token differ where the features do."""
    assert program.config.feature_size == FEATURES
    with Session(program, threads=2) as session:
        seq = session.create_sequence()
        given = np.stack([TABLE[4], TABLE[4] + 1, TABLE[4]])
        session.stage(seq, [4, 4, 4], [-1, -1, -1], given)
        logits = session.forward([(seq, 0), (seq, 1), (seq, 2)]).logits
        assert_same(logits[0], logits[2])
        assert_same(logits[0], truth.logits([4]))
        assert np.abs(logits[0] - logits[1]).max() > 0.1


def test_committed_rows_keep_their_features_until_they_are_computed(
    program: LoadedProgram, truth: Reference
) -> None:
    """The committed path moves to the front, is forked, and its features go along."""
    with FeatureSession(program, sequences=2, threads=1) as session:
        seq = session.create_sequence()
        session.stage(seq, [1, 2, 3, 4], [-1, -1, 1, 2])
        session.commit(seq, [1, 2, 3])
        fork = session.fork(seq)
        session.stage(seq, [7] * 9)  # what the dropped row held is free again
        session.commit(seq, [])
        for number, token in ((seq, 5), (fork, 6)):
            session.stage(number, [token])
            result = session.forward([(number, 0)])
            assert result.carried_rows == 3
            assert_same(result.logits[0], truth.logits([2, 3, 4, token]))


def test_as_many_rows_may_wait_as_one_forward_takes(program: LoadedProgram, truth: Reference) -> None:
    with FeatureSession(program, threads=1) as session:
        seq = session.create_sequence()
        session.stage(seq, [1] * (MAX_ROWS - 1))
        with pytest.raises(RuntimeFailure, match=r"11 rows .* 2 more are more than the 12") as caught:
            session.stage(seq, [2, 3])
        assert caught.value.status == Status.INVALID_ARGUMENT
        assert session.staged(seq) == MAX_ROWS - 1
        session.stage(seq, [2])
        session.forward([(seq, row) for row in range(MAX_ROWS)], logits=[])
        for _ in range(2):  # what was dropped waits no longer
            session.commit(seq, [])
            session.stage(seq, [3] * MAX_ROWS)
        session.commit(seq, range(MAX_ROWS))
        session.rewind(seq, 2)
        session.stage(seq, [4])
        assert_same(session.forward([(seq, 0)]).logits[0], truth.logits([3, 3, 4]))


BAD_FEATURES = {
    "none": (None, r"comes with 5 features"),
    "too narrow": (np.zeros((2, FEATURES - 1), np.float32), r"shape \[2, 4\], not \[2, 5\]"),
    "too few": (np.zeros((1, FEATURES), np.float32), r"shape \[1, 5\], not \[2, 5\]"),
    "a row": (np.zeros(FEATURES, np.float32), r"shape \[5\]"),
}


@pytest.mark.parametrize("name", BAD_FEATURES)
def test_features_that_do_not_fit_are_refused(program: LoadedProgram, name: str) -> None:
    features, words = BAD_FEATURES[name]
    with Session(program, threads=1) as session:
        seq = session.create_sequence()
        with pytest.raises(RuntimeFailure, match=words):
            session.stage(seq, [1, 2], features=features)
        assert session.staged(seq) == 0


def test_a_program_without_features_takes_none(tmp_path: Path) -> None:
    with Session(load(tmp_path), threads=1) as session:
        seq = session.create_sequence()
        with pytest.raises(RuntimeFailure, match="have no features"):
            session.stage(seq, [1], features=np.zeros((1, 3), np.float32))
        one = np.zeros(1, np.float32), np.zeros(1, np.int32)
        status = load_library().forerun_stage_features(
            session.pointer, seq, 1, one[1].ctypes.data, one[0].ctypes.data, None
        )
        assert status == Status.INVALID_ARGUMENT
        assert b"have no features" in load_library().forerun_last_error()


def test_a_program_without_embedding_takes_hidden_states_only(tmp_path: Path) -> None:
    with Session(load(tmp_path, "-DTINY_NO_EMBED"), threads=1) as session:
        seq = session.create_sequence()
        with pytest.raises(RuntimeFailure, match="rows are hidden states"):
            session.stage(seq, [1])
        rows = session.stage_hidden(seq, np.random.default_rng(0).standard_normal((2, HIDDEN)))
        assert np.isfinite(session.forward([(seq, row) for row in rows]).logits).all()
