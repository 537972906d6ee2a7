"""Sessions that run on the threads of another one."""

import threading
import time
from pathlib import Path

import pytest
from reference import Reference, assert_same, prefill
from tiny_model import MAX_ROWS

from forerun.errors import OptionError, RuntimeFailure
from forerun.runtime.library import Status
from forerun.runtime.session import LoadedProgram, Session


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_no_further_threads_are_started(program: LoadedProgram) -> None:
    with Session(program, threads=3) as first:
        before = threads_of_this_process()
        with Session(program, team_of=first) as second, Session(program, team_of=second) as third:
            assert (second.threads, third.threads) == (3, 3)
            assert threads_of_this_process() == before
            with Session(program, threads=3):
                assert threads_of_this_process() == before + 2
            prefill(third, third.create_sequence(), [1, 2])
    assert threads_of_this_process() == before - 2


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_taking_turns_changes_nothing(
    any_program: LoadedProgram, half_bundle: Path, reference: Reference, threads: int
) -> None:
    """The sessions are over different programs and have sequences of different lengths."""
    other = Reference(LoadedProgram(half_bundle))
    with (
        Session(any_program, threads=threads) as first,
        Session(LoadedProgram(half_bundle), capacity=40, team_of=first) as second,
    ):
        known: list[tuple[Session, int, Reference, list[int]]] = [
            (first, first.create_sequence(), reference, []),
            (second, second.create_sequence(), other, []),
        ]
        for token in range(12):
            for session, seq, truth, path in known:
                path.append(token)
                assert_same(prefill(session, seq, [token])[0], truth.logits(path))


@pytest.mark.parametrize("first_to_go", [0, 1])
def test_either_may_be_closed_first(program: LoadedProgram, tiny_bundle: Path, first_to_go: int) -> None:
    before = threads_of_this_process()
    truth = Reference(LoadedProgram(tiny_bundle))
    first = Session(program, threads=2)
    sessions = [first, Session(program, team_of=first)]
    sequences = [session.create_sequence() for session in sessions]
    for session, seq in zip(sessions, sequences, strict=True):
        prefill(session, seq, [3, 4])
    del first
    sessions[first_to_go].close()
    left = 1 - first_to_go
    assert_same(prefill(sessions[left], sequences[left], [5])[0], truth.logits([3, 4, 5]))
    sessions[left].close()
    del sessions, session, truth
    assert threads_of_this_process() == before


def test_a_second_thread_is_kept_out_of_both(program: LoadedProgram) -> None:
    with Session(program, threads=2) as first, Session(program, sequences=9, team_of=first) as second:
        first_seq, second_seq = first.create_sequence(), second.create_sequence()
        second.stage(second_seq, [1] * MAX_ROWS)
        refusals = []

        def disturb() -> None:
            while not done.is_set():
                try:
                    second.forward([(second_seq, row) for row in range(MAX_ROWS)], steps=(), logits=[])
                except RuntimeFailure as error:
                    refusals.append(error.status)

        done = threading.Event()
        thread = threading.Thread(target=disturb)
        thread.start()
        entered = 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                entered += first.length(first_seq) == 0
            except RuntimeFailure as error:
                refusals.append(error.status)
            if len(refusals) >= 3 and entered >= 3:
                break
        done.set()
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert entered >= 3
        assert refusals
        assert set(refusals) == {Status.BUSY}


def test_another_number_of_threads_is_refused(program: LoadedProgram) -> None:
    with Session(program, threads=2) as first:
        assert Session(program, threads=2, team_of=first).threads == 2
        with pytest.raises(OptionError, match=r"threads is 3, but the team to share has 2"):
            Session(program, threads=3, team_of=first)


def test_a_closed_session_has_no_team_to_share(program: LoadedProgram) -> None:
    first = Session(program, threads=1)
    first.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        Session(program, team_of=first)
