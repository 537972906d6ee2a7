"""Random sequences of calls against the reference: whatever was done before, every row is exact."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import Reference, assert_cache, assert_same, skip
from tiny_model import LAYERS, MAX_GATHER, MAX_ROWS, VOCABULARY

from forerun.errors import RuntimeFailure
from forerun.runtime.library import Status
from forerun.runtime.session import LoadedProgram, Session, full_steps

STEPS = full_steps(LAYERS)
FULL = 2 * LAYERS
SEQUENCES = 3


@dataclass
class Staged:
    token_id: int
    parent: int
    done: int = 0


@dataclass
class Track:
    """What a sequence should hold: committed tokens with their depths, then staged rows."""

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    staged: list[Staged] = field(default_factory=list)

    def branch(self, row: int) -> list[int]:
        """Staged rows from the root to `row`."""
        rows = []
        while row >= 0:
            rows.append(row)
            row = self.staged[row].parent
        return rows[::-1]

    def path(self, row: int) -> list[int]:
        return [*self.tokens, *(self.staged[at].token_id for at in self.branch(row))]

    def deepen(self, row: int, depth: int) -> None:
        """The row and its ancestors reach `depth`, if it was not there already."""
        if self.staged[row].done >= depth:
            return
        self.depths = [max(done, depth) for done in self.depths]
        for at in self.branch(row):
            self.staged[at].done = max(self.staged[at].done, depth)


class Walk:
    """One random walk through the calls of a session; `random` decides everything."""

    session_class: type[Session] = Session

    def __init__(self, program: LoadedProgram, reference: Reference, random: Random) -> None:
        self.reference, self.random = reference, random
        self.session = self.session_class(
            program,
            sequences=SEQUENCES,
            capacity=random.choice((40, 77)),
            threads=random.choice((1, 1, 1, 2, 4)),
        )
        self.tracks: dict[int, Track] = {}
        self.create()
        # How often each kind of call comes: most of the time rows are staged, run and kept.
        self._calls: list[tuple[Callable[[], None], int]] = [
            (self.stage, 6),
            (self.forward, 6),
            (self.commit, 4),
            (self.rewind, 1),
            (self.fork, 1),
            (self.save_and_restore, 1),
            (self.create, 1),
            (self.release, 1),
            (self.draft_and_drop, 1),
        ]

    def step(self) -> None:
        """Do one call and compare everything that can be asked with the tracks."""
        calls, weights = zip(*self._calls, strict=True)
        self.random.choices(calls, weights)[0]()
        self.check()

    def pick(self) -> tuple[int, Track]:
        number = self.random.choice(sorted(self.tracks))
        return number, self.tracks[number]

    def create(self) -> None:
        if len(self.tracks) < SEQUENCES:
            self.tracks[self.session.create_sequence()] = Track()

    def release(self) -> None:
        if len(self.tracks) > 1:
            number, _ = self.pick()
            self.session.release_sequence(number)
            del self.tracks[number]

    def fork(self) -> None:
        if len(self.tracks) < SEQUENCES:
            number, track = self.pick()
            self.tracks[self.session.fork(number)] = Track(list(track.tokens), list(track.depths))

    def save_and_restore(self) -> None:
        number, track = self.pick()
        with TemporaryDirectory() as folder:
            self.session.save(number, Path(folder) / "saved")
            self.session.release_sequence(number)
            del self.tracks[number]
            restored = self.session.restore(Path(folder) / "saved")
        self.tracks[restored] = Track(list(track.tokens), list(track.depths))
        assert self.session.token_ids(restored) == track.tokens
        assert_cache(self.session, restored, track.tokens, self.reference)

    def stage(self) -> None:
        number, track = self.pick()
        room = min(5, self.session.capacity - len(track.tokens) - len(track.staged))
        count = self.random.randint(0, room)
        token_ids = [self.random.randrange(VOCABULARY) for _ in range(count)]
        first = len(track.staged)
        # Mostly chains, as real trees are; branches anywhere now and then.
        parents = [
            at - 1 if self.random.random() < 0.6 else self.random.randint(-1, at - 1)
            for at in range(first, first + count)
        ]
        grown = Track(track.tokens, track.depths, list(track.staged))
        grown.staged += [Staged(*pair) for pair in zip(token_ids, parents, strict=True)]
        if not count or max(len(grown.branch(row)) for row in range(first + count)) > MAX_GATHER:
            return
        assert self.session.stage(number, token_ids, parents) == range(first, first + count)
        track.staged = grown.staged

    def forward(self) -> None:
        every = [(n, row) for n, track in self.tracks.items() for row in range(len(track.staged))]
        if not every:
            return
        rows = self.random.sample(every, self.random.randint(1, min(len(every), MAX_ROWS)))
        depth = self.random.choice((FULL, FULL, FULL, *range(FULL)))
        readable = [index for index, (n, row) in enumerate(rows) if self.tracks[n].staged[row].done < FULL]
        try:
            result = self.session.forward(rows, steps=STEPS[:depth], logits=readable)
        except RuntimeFailure as error:
            assert error.status == Status.INVALID_ARGUMENT
            assert "between listed rows" in str(error)
            return
        for logits, index in zip(result.logits, readable, strict=True):
            number, row = rows[index]
            track = self.tracks[number]
            truth = self.reference.truth(track.path(row))
            assert_same(logits, truth.logits[max(depth, track.staged[row].done)])
        for number, row in rows:
            self.tracks[number].deepen(row, depth)

    def commit(self) -> None:
        number, track = self.pick()
        path = track.branch(self.random.randint(-1, len(track.staged) - 1))
        self.session.commit(number, path)
        track.tokens += [track.staged[row].token_id for row in path]
        track.depths += [track.staged[row].done for row in path]
        track.staged = []
        assert_cache(self.session, number, track.tokens, self.reference)

    def rewind(self) -> None:
        number, track = self.pick()
        length = self.random.randint(max(0, len(track.tokens) - 9), len(track.tokens))
        self.session.rewind(number, length)
        self.tracks[number] = Track(track.tokens[:length], track.depths[:length])

    def draft_and_drop(self) -> None:
        """A draft that skips sublayers, dropped again, leaves nothing behind but deeper pending rows."""
        number, track = self.pick()
        if track.staged or len(track.tokens) + 2 > self.session.capacity:
            return
        token_ids = [self.random.randrange(VOCABULARY) for _ in range(2)]
        # The last sublayer stays: without it this would only be an early exit.
        steps = skip(STEPS, *self.random.sample(range(FULL - 1), self.random.randint(1, 3)))
        one_by_one = []
        for row in self.session.stage(number, token_ids):
            one_by_one.append(self.session.forward([(number, row)], steps=steps).logits[0].copy())
        self.session.commit(number, [])
        rows = [(number, row) for row in self.session.stage(number, token_ids)]
        assert_same(self.session.forward(rows, steps=steps).logits, np.array(one_by_one))
        self.session.commit(number, [])
        track.depths = [FULL] * len(track.depths)

    def check(self) -> None:
        for number, track in self.tracks.items():
            assert self.session.length(number) == len(track.tokens)
            assert self.session.staged(number) == len(track.staged)
            assert self.session.pending(number) == sum(done < FULL for done in track.depths)
            depths = track.depths + [row.done for row in track.staged]
            assert [self.session.row_depth(number, slot) for slot in range(len(depths))] == depths


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False), length=st.integers(1, 60))
def test_any_sequence_of_calls(
    any_program: LoadedProgram, reference: Reference, random: Random, length: int
) -> None:
    """Hypothesis decides, and shrinks what it finds."""
    walk = Walk(any_program, reference, random)
    for _ in range(length):
        walk.step()


@pytest.mark.parametrize("seed", range(12))
def test_long_walks(any_program: LoadedProgram, reference: Reference, seed: int) -> None:
    walk = Walk(any_program, reference, Random(seed))
    for _ in range(150):
        walk.step()
