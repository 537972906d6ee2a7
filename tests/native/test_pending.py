"""Rows that stop early, rows that skip sublayers, and the pending ancestors that deeper rows take along."""

import numpy as np
import pytest
from reference import Reference, assert_cache, assert_same, prefill, skip
from tiny_model import LAYERS, MAX_ROWS

from forerun.errors import RuntimeFailure
from forerun.runtime.library import Status
from forerun.runtime.session import LoadedProgram, Session, full_steps

PROMPT = (3, 5, 7, 1, 2)
STEPS = full_steps(LAYERS)
FULL = 2 * LAYERS


@pytest.fixture(params=(1, 2))
def session(request: pytest.FixtureRequest, any_program: LoadedProgram) -> Session:
    return Session(any_program, sequences=3, threads=request.param)


def commit_shallow(session: Session, sequence: int, token_ids: list[int], depth: int) -> None:
    """Commit rows that have passed `depth` sublayers."""
    for token_id in token_ids:
        session.stage(sequence, [token_id])
        session.forward([(sequence, 0)], steps=STEPS[:depth], logits=())
        session.commit(sequence, [0])


def refused(status: Status) -> pytest.RaisesExc[RuntimeFailure]:
    return pytest.raises(RuntimeFailure, check=lambda error: error.status == status)


@pytest.mark.parametrize("depth", range(FULL))
def test_logits_at_every_depth_then_deeper(session: Session, reference: Reference, depth: int) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    rows = [(sequence, row) for row in session.stage(sequence, [8, 9, 10], [-1, 0, 0])]
    paths = ([*PROMPT, 8], [*PROMPT, 8, 9], [*PROMPT, 8, 10])
    shallow = session.forward(rows, steps=STEPS[:depth])
    for logits, path in zip(shallow.logits, paths, strict=True):
        assert_same(logits, reference.truth(path).logits[depth])
    # The whole list again: a row skips what it has passed.
    deep = session.forward(rows)
    for logits, path in zip(deep.logits, paths, strict=True):
        assert_same(logits, reference.logits(path))


@pytest.mark.parametrize("depth", range(FULL))
def test_committed_shallow_rows_are_carried_exactly(
    session: Session, reference: Reference, depth: int
) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    commit_shallow(session, sequence, [8, 9, 10], depth)
    assert session.pending(sequence) == 3
    # Each was the first to go that far: a row takes its pending ancestors as deep as itself, no deeper.
    assert_cache(session, sequence, [*PROMPT, 8, 9, 10], reference)
    session.stage(sequence, [11])
    result = session.forward([(sequence, 0)])
    assert (result.carried_rows, result.passes) == (3, 1)
    assert_same(result.logits[0], reference.logits([*PROMPT, 8, 9, 10, 11]))
    assert session.pending(sequence) == 0
    assert_cache(session, sequence, [*PROMPT, 8, 9, 10], reference)


def test_ancestors_go_as_deep_as_the_row_and_no_deeper(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    commit_shallow(session, sequence, [1, 2, 3], 1)
    session.stage(sequence, [4])
    session.forward([(sequence, 0)], steps=STEPS[:4])
    assert [session.row_depth(sequence, slot) for slot in range(4)] == [4, 4, 4, 4]
    session.commit(sequence, [0])
    assert session.pending(sequence) == 4
    assert_cache(session, sequence, [1, 2, 3, 4], reference)


def test_more_pending_rows_than_one_call_holds(session: Session, reference: Reference) -> None:
    tokens = [(5 * i + 1) % 37 for i in range(3 * MAX_ROWS + 5)]
    sequence, other = session.create_sequence(), session.create_sequence()
    for number, token_ids in ((sequence, tokens), (other, tokens[::-1])):
        for at in range(0, len(token_ids), MAX_ROWS):
            rows = session.stage(number, token_ids[at : at + MAX_ROWS])
            session.commit(number, list(rows))
    assert session.pending(sequence) == len(tokens)
    session.stage(sequence, [8])
    session.stage(other, [8])
    result = session.forward([(sequence, 0), (other, 0)])
    assert (result.carried_rows, result.passes) == (2 * len(tokens), 8)
    assert_same(result.logits[0], reference.logits([*tokens, 8]))
    assert_same(result.logits[1], reference.logits([*tokens[::-1], 8]))
    assert session.pending(sequence) == session.pending(other) == 0
    assert_cache(session, sequence, tokens, reference)


def test_rewind_and_fork_keep_what_is_pending(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    commit_shallow(session, sequence, [8, 9, 10], 3)
    session.rewind(sequence, len(PROMPT) + 1)
    assert session.pending(sequence) == 1
    twin = session.fork(sequence)
    assert session.pending(twin) == 1
    for number, token_id in ((twin, 11), (sequence, 12)):
        session.stage(number, [token_id])
        logits = session.forward([(number, 0)]).logits[0]
        assert_same(logits, reference.logits([*PROMPT, 8, token_id]))
        assert session.pending(number) == 0


def test_pending_rows_move_with_their_hidden_state(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    rows = session.stage(sequence, [20, 8, 21, 9], [-1, -1, 0, 1])
    session.forward([(sequence, row) for row in rows], steps=STEPS[:3], logits=())
    session.commit(sequence, [1, 3])
    session.stage(sequence, [10])
    assert_same(session.forward([(sequence, 0)]).logits[0], reference.logits([*PROMPT, 8, 9, 10]))
    assert_cache(session, sequence, [*PROMPT, 8, 9], reference)


def test_a_self_draft_is_continued_by_the_verify_call(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    path = [*PROMPT]
    for token_id in (8, 9, 10):
        row = session.stage(sequence, [token_id])[0]
        path.append(token_id)
        logits = session.forward([(sequence, row)], steps=STEPS[:2]).logits[0]
        assert_same(logits, reference.truth(path).logits[2])
    result = session.forward([(sequence, row) for row in range(3)])
    assert (result.carried_rows, result.passes) == (0, 1)
    for row in range(3):
        assert_same(result.logits[row], reference.logits(path[: len(PROMPT) + row + 1]))


@pytest.mark.parametrize("skipped", [(0,), (2,), (3,), (0, 1), (2, 3, 4)])
def test_a_skip_set_can_be_read_but_not_kept(
    session: Session, reference: Reference, skipped: tuple[int, ...]
) -> None:
    steps = skip(STEPS, *skipped)
    sequence = session.create_sequence()
    commit_shallow(session, sequence, list(PROMPT), 2)
    drafted = []
    for token_id in (8, 9, 10):
        row = session.stage(sequence, [token_id])[0]
        drafted.append(session.forward([(sequence, row)], steps=steps).logits[0].copy())
    with refused(Status.INEXACT_ROW):
        session.commit(sequence, [0])
    with refused(Status.INEXACT_ROW):
        session.forward([(sequence, 0)])
    session.commit(sequence, [])
    assert_cache(session, sequence, PROMPT, reference)
    # The same draft in one call gives the same bits.
    rows = session.stage(sequence, [8, 9, 10])
    again = session.forward([(sequence, row) for row in rows], steps=steps).logits
    assert_same(again, np.array(drafted))
    session.commit(sequence, [])
    assert_same(prefill(session, sequence, [8, 9])[-1], reference.logits([*PROMPT, 8, 9]))


def test_below_an_inexact_row_everything_is_inexact(session: Session) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    session.stage(sequence, [8, 9, 10], [-1, 0, 0])
    session.forward([(sequence, 0)], steps=skip(STEPS, 3))
    session.forward([(sequence, 1)])
    for path in ([0], [0, 1]):
        with refused(Status.INEXACT_ROW):
            session.commit(sequence, path)
    with refused(Status.INEXACT_ROW):
        session.forward([(sequence, 1)])
    # A row that has not run but lies between cannot be taken along.
    session.stage(sequence, [11], [2])
    with refused(Status.INEXACT_ROW):
        session.forward([(sequence, 3)])


def test_a_layer_that_an_ancestor_skipped_cannot_be_read(session: Session) -> None:
    sequence = session.create_sequence()
    session.stage(sequence, [8, 9])
    session.forward([(sequence, 0)], steps=skip(STEPS, 2))
    with refused(Status.INEXACT_ROW):
        session.forward([(sequence, 1)])
    session.forward([(sequence, 1)], steps=skip(STEPS, 2))


def test_beside_a_row_that_skips_its_descendant_is_inexact(session: Session) -> None:
    """The child runs in order, but reads what its parent computed out of order in the same call."""
    sequence = session.create_sequence()
    session.stage(sequence, [8, 9])
    session.forward([(sequence, 0), (sequence, 1)], steps=STEPS[:2], logits=())
    session.stage(sequence, [10], [1])
    session.forward([(sequence, 2)], steps=STEPS[:4], logits=())  # takes 0 and 1 along
    session.stage(sequence, [11], [-1])
    session.stage(sequence, [12], [3])
    session.forward([(sequence, 4)], steps=STEPS[:2], logits=())
    session.forward([(sequence, 3), (sequence, 4)], steps=STEPS[3:], logits=())
    with refused(Status.INEXACT_ROW):
        session.commit(sequence, [3])
    session.commit(sequence, [0, 1, 2])


def test_a_row_between_listed_ones_must_be_listed_when_it_cannot_share_their_pass(session: Session) -> None:
    sequence = session.create_sequence()
    session.commit(sequence, list(session.stage(sequence, [1] * MAX_ROWS)))
    session.stage(sequence, [8, 9, 10])
    with refused(Status.INVALID_ARGUMENT):
        session.forward([(sequence, 0), (sequence, 2)])
    session.forward([(sequence, 0), (sequence, 1), (sequence, 2)])
    session.commit(sequence, [0, 1, 2])


def test_what_hidden_rows_lack_is_refused(session: Session) -> None:
    sequence = session.create_sequence()
    session.stage_hidden(sequence, np.ones((1, session.config.hidden_size), np.float32), start=2)
    session.forward([(sequence, 0)])
    session.stage(sequence, [3])
    with refused(Status.NOT_COMPUTED):
        session.forward([(sequence, 1)])
    with refused(Status.NOT_COMPUTED):
        session.read_kv(sequence, 0, 0, 1)


def test_logits_and_taps_must_have_been_computed(session: Session) -> None:
    sequence = session.create_sequence()
    session.stage(sequence, [3, 4])
    rows = [(sequence, 0), (sequence, 1)]
    with refused(Status.NOT_COMPUTED):
        session.forward(rows, steps=STEPS[:2], taps=(1,))
    session.forward(rows, steps=STEPS[:2], logits=(), taps=(0,))
    session.forward(rows)
    with refused(Status.NOT_COMPUTED):
        session.forward(rows)
    with refused(Status.NOT_COMPUTED):
        session.forward(rows, logits=(), taps=(0,))
    assert session.forward(rows, logits=()).passes == 0


def test_rows_that_stand_after_a_layer_still_have_its_states(session: Session) -> None:
    """Alone, beside rows that pass the layer in the same call, and however far the call then goes."""
    sequence = session.create_sequence()
    session.stage(sequence, [3, 4, 5])
    rows = [(sequence, row) for row in range(3)]
    expected = session.forward(rows[:2], steps=STEPS[:2], logits=(), taps=(0,)).taps[0].copy()
    again = session.forward(rows[:2], steps=STEPS[:2], logits=(), taps=(0,)).taps[0]
    assert again.tobytes() == expected.tobytes()
    last = 2 * session.config.layers
    beside = (
        session.forward([rows[2], *rows[:2]], steps=STEPS[: last - 1], logits=(), taps=(0,)).taps[0].copy()
    )
    assert beside[1:].tobytes() == expected.tobytes()
    twin = session.create_sequence()
    session.stage(twin, [3, 4, 5])
    whole = session.forward([(twin, row) for row in range(3)], taps=(0,)).taps[0]
    assert whole.tobytes() == np.concatenate([expected, beside[:1]]).tobytes()
