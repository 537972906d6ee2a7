"""forward, commit, rewind, fork: a row gives the same bits however it is grouped, on whatever number of threads."""

import random

import numpy as np
import pytest
from reference import Reference, assert_cache, assert_same, prefill
from tiny_model import LAYERS, VOCABULARY, make_weights, run_tokens

from forerun.runtime.session import LoadedProgram, Session, full_steps

PROMPT = (3, 5, 7, 1, 2, 9, 4)
STEPS = full_steps(LAYERS)
THREADS = (1, 2, 4)

# token and parent of each row: a tree whose branches lie interleaved.
TREE = ((8, -1), (1, 0), (2, 0), (3, 1), (4, 2), (5, 2), (6, 3), (7, 5), (9, -1))


def path_to(row: int) -> list[int]:
    """Tokens of the branch that ends in a row of TREE."""
    token_id, parent = TREE[row]
    return [*(path_to(parent) if parent >= 0 else ()), token_id]


@pytest.fixture(params=THREADS)
def session(request: pytest.FixtureRequest, any_program: LoadedProgram) -> Session:
    return Session(any_program, sequences=4, threads=request.param)


def stage_tree(session: Session, sequence: int) -> list[tuple[int, int]]:
    rows = session.stage(sequence, [token for token, _ in TREE], [parent for _, parent in TREE])
    return [(sequence, row) for row in rows]


def test_equals_the_definition_in_numpy(program: LoadedProgram) -> None:
    session = Session(program, threads=2)
    sequence = session.create_sequence()
    rows = session.stage(sequence, PROMPT)
    result = session.forward([(sequence, row) for row in rows], taps=(0, 2))
    logits, taps = run_tokens(make_weights(), PROMPT)
    np.testing.assert_allclose(result.logits, logits, atol=2e-5)
    assert list(result.taps) == [0, 2]
    for layer, tap in result.taps.items():
        np.testing.assert_allclose(tap, taps[layer], atol=2e-5)


def test_alone_in_a_chain_and_in_a_tree(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    logits = prefill(session, sequence, PROMPT)
    for position in range(len(PROMPT)):
        assert_same(logits[position], reference.logits(PROMPT[: position + 1]))
    result = session.forward(stage_tree(session, sequence))
    for row in range(len(TREE)):
        assert_same(result.logits[row], reference.logits([*PROMPT, *path_to(row)]))


def test_rows_one_by_one_in_any_order(session: Session, reference: Reference) -> None:
    """Ancestors that have not run are taken along, whichever row is asked for first."""
    for seed in range(5):
        sequence = session.create_sequence()
        prefill(session, sequence, PROMPT[:2])
        rows = stage_tree(session, sequence)
        random.Random(seed).shuffle(rows)
        for row in rows:
            if session.row_depth(sequence, 2 + row[1]) == 2 * LAYERS:
                continue
            logits = session.forward([row]).logits[0]
            assert_same(logits, reference.logits([*PROMPT[:2], *path_to(row[1])]))
        session.release_sequence(sequence)


def test_order_of_rows_and_of_logits(
    session: Session, reference: Reference, any_program: LoadedProgram
) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    rows = stage_tree(session, sequence)[::-1]
    wanted = [4, 0, 7]
    result = session.forward(rows, logits=wanted, taps=(1,))
    assert result.logits.shape == (3, VOCABULARY)
    for logits, index in zip(result.logits, wanted, strict=True):
        assert_same(logits, reference.logits([*PROMPT, *path_to(rows[index][1])]))
    other = Session(any_program, threads=1)
    twin = other.create_sequence()
    prefill(other, twin, PROMPT)
    plain = other.forward(stage_tree(other, twin), logits=(), taps=(1,))
    assert plain.logits.shape == (0, VOCABULARY)
    assert_same(result.taps[1], plain.taps[1][::-1])


@pytest.mark.parametrize("path", [[], [0], [8], [0, 2, 5, 7], [0, 1, 3, 6]])
def test_commit_keeps_a_path(session: Session, reference: Reference, path: list[int]) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    session.forward(stage_tree(session, sequence), logits=())
    session.commit(sequence, path)
    tokens = [*PROMPT, *(TREE[row][0] for row in path)]
    assert (session.length(sequence), session.staged(sequence)) == (len(tokens), 0)
    assert_cache(session, sequence, tokens, reference)
    assert_same(prefill(session, sequence, [11])[0], reference.logits([*tokens, 11]))


def test_a_tree_grown_row_by_row(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    for row, (token, parent) in enumerate(TREE):
        assert session.stage(sequence, [token], [parent]) == range(row, row + 1)
        logits = session.forward([(sequence, row)]).logits[0]
        assert_same(logits, reference.logits([*PROMPT, *path_to(row)]))


def test_a_prompt_in_pieces(session: Session, reference: Reference) -> None:
    tokens = [(7 * i + 3) % VOCABULARY for i in range(40)]
    sequence = session.create_sequence()
    at = 0
    for size in (1, 12, 5, 11, 1, 10):
        logits = prefill(session, sequence, tokens[at : at + size])
        at += size
        assert_same(logits[-1], reference.logits(tokens[:at]))
    assert_cache(session, sequence, tokens, reference)


def test_rows_of_several_sequences_in_one_call(session: Session, reference: Reference) -> None:
    prompts = ([1, 2, 3], [4], [5, 6])
    sequences = [session.create_sequence() for _ in prompts]
    for sequence, prompt in zip(sequences, prompts, strict=True):
        prefill(session, sequence, prompt)
    rows = []
    for sequence in sequences:
        session.stage(sequence, [7, 8, 9], [-1, 0, 0])
        rows += [(sequence, 2), (sequence, 0), (sequence, 1)]
    logits = session.forward(rows).logits
    for index, (sequence, row) in enumerate(rows):
        tail = [[7], [7, 8], [7, 9]][row]
        assert_same(logits[index], reference.logits([*prompts[sequences.index(sequence)], *tail]))


def test_rewind_then_continue_equals_never_having_gone_there(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    prefill(session, sequence, [30, 31, 32])
    session.stage(sequence, [1, 2])
    for length in (8, 3, 0):
        session.rewind(sequence, length)
        tokens = [*PROMPT, 30][:length]
        assert (session.length(sequence), session.staged(sequence)) == (length, 0)
        assert_same(prefill(session, sequence, [20])[0], reference.logits([*tokens, 20]))
        assert_cache(session, sequence, [*tokens, 20], reference)


def test_a_fork_goes_its_own_way(session: Session, reference: Reference) -> None:
    sequence = session.create_sequence()
    prefill(session, sequence, PROMPT)
    session.stage(sequence, [1])
    twin = session.fork(sequence)
    assert (session.length(twin), session.staged(twin)) == (len(PROMPT), 0)
    session.commit(sequence, [])
    assert_same(prefill(session, sequence, [20])[0], reference.logits([*PROMPT, 20]))
    assert_same(prefill(session, twin, [21])[0], reference.logits([*PROMPT, 21]))
    assert_cache(session, sequence, [*PROMPT, 20], reference)
    assert_cache(session, twin, [*PROMPT, 21], reference)


def test_hidden_states_instead_of_tokens(session: Session) -> None:
    """Rows that enter with the hidden states of other rows continue exactly as those do."""
    first, second = session.create_sequence(), session.create_sequence()
    rows = [(first, row) for row in session.stage(first, PROMPT)]
    hidden = session.forward(rows, steps=STEPS[:2], taps=(0,)).taps[0].copy()
    expected = session.forward(rows, steps=STEPS).logits.copy()
    twins = [(second, row) for row in session.stage_hidden(second, hidden, start=2)]
    assert_same(session.forward(twins[:3]).logits, expected[:3])
    session.commit(second, [0, 1, 2])
    session.stage_hidden(second, hidden[3:], start=2)
    assert_same(session.forward([(second, 3)]).logits[0], expected[6])


def test_logits_stay_readable_after_the_session_is_closed(any_program: LoadedProgram) -> None:
    session = Session(any_program, threads=1)
    sequence = session.create_sequence()
    session.stage(sequence, [1])
    logits = session.forward([(sequence, 0)]).logits
    before = logits.copy()
    session.close()
    assert_same(logits, before)
