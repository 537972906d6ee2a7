"""The thread team: as many as asked, sensible by default, and never stuck however few processors there are."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from reference import prefill
from tiny_model import LAYERS

from forerun.errors import RuntimeFailure
from forerun.runtime.library import Status
from forerun.runtime.session import LoadedProgram, Session

PINNED = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pathlib import Path
from forerun.runtime.session import LoadedProgram, Session
program = LoadedProgram(Path(sys.argv[1]))
assert Session(program).threads == 1
logits = set()
for threads in (1, 2, 5):
    session = Session(program, threads=threads)
    sequence = session.create_sequence()
    for token in range(30):
        session.stage(sequence, [token])
        last = session.forward([(sequence, 0)]).logits[0].tobytes()
        session.commit(sequence, [0])
    logits.add(last)
assert len(logits) == 1
"""


def test_default_is_at_most_the_processors_at_hand(program: LoadedProgram) -> None:
    assert 1 <= Session(program).threads <= len(os.sched_getaffinity(0))


def test_on_one_processor_it_is_slower_but_done(tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", PINNED, str(tiny_bundle)]
    subprocess.run(command, check=True, timeout=60, cwd=tiny_bundle)


def test_far_more_threads_than_processors(program: LoadedProgram) -> None:
    session = Session(program, threads=24)
    assert session.threads == 24
    prefill(session, session.create_sequence(), [1, 2, 3])


def test_sessions_of_one_program_side_by_side(program: LoadedProgram) -> None:
    results: dict[int, bytes] = {}

    def run(number: int) -> None:
        session = Session(program, threads=2)
        sequence = session.create_sequence()
        for token in range(20):
            logits = prefill(session, sequence, [token])
        results[number] = logits.tobytes()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == 4
    assert len(set(results.values())) == 1


def test_a_second_thread_in_one_session_is_told_so(program: LoadedProgram) -> None:
    """Calls that do get in are whole: what was committed is exact, whoever was turned away."""
    session = Session(program, threads=2)
    sequence = session.create_sequence()
    session.stage(sequence, [1] * 12)
    refusals = []

    def disturb() -> None:
        for _ in range(3000):
            try:
                session.length(sequence)
            except RuntimeFailure as error:
                refusals.append(error.status)

    thread = threading.Thread(target=disturb)
    thread.start()
    done = 0
    while thread.is_alive() or not done:
        try:
            session.forward([(sequence, row) for row in range(12)], logits=())
            done = 1
        except RuntimeFailure as error:
            refusals.append(error.status)
    thread.join()
    assert set(refusals) <= {Status.BUSY}
    assert session.row_depth(sequence, 11) == 2 * LAYERS


def test_many_sessions_come_and_go(program: LoadedProgram) -> None:
    gc.collect()
    before = count_tasks()
    for _ in range(20):
        session = Session(program, threads=3)
        prefill(session, session.create_sequence(), [1])
        session.close()
    assert count_tasks() <= before


def count_tasks() -> int:
    """Threads of this process, native ones too."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("this system does not list a process's threads")
    return len(list(Path("/proc/self/task").iterdir()))
