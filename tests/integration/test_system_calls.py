"""The compiled SmolLM2 on the way of a token: no system calls, and the same ids on processors that are too few."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from system_calls import TIMEOUT_S, one_processor, token_command, trace_tokens

TOKENS = 12
LAYERS = 30
MOST_BARRIERS = 1 + 7 * LAYERS + 2 + 1  # embed, the bar for a layer, head, the end of the call
CALLS_OF_A_SLEEP = 6


def test_one_thread_makes_no_system_call(compiled: Callable[..., Path], tmp_path: Path) -> None:
    assert not trace_tokens(compiled("keep"), tmp_path, threads=1, tokens=TOKENS).calls


def test_two_threads_do_nothing_but_sleep(compiled: Callable[..., Path], tmp_path: Path) -> None:
    """A thread that has spun for long sleeps on a futex, at most once a barrier; there is no other call."""
    calls = trace_tokens(compiled("keep"), tmp_path, threads=2, tokens=TOKENS).calls
    assert set(calls) <= {"futex", "restart_syscall"}
    assert calls["futex"] <= CALLS_OF_A_SLEEP * MOST_BARRIERS * TOKENS


def test_too_few_processors_give_the_same_ids(compiled: Callable[..., Path], tmp_path: Path) -> None:
    """Two threads pinned to one processor, and more threads than there are processors."""

    def ids(threads: int, processors: set[int]) -> str:
        command = token_command(compiled("keep"), tmp_path, threads, TOKENS)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
        finally:
            os.sched_setaffinity(0, before)
        return done.stdout

    everything = os.sched_getaffinity(0)
    alone = ids(1, everything)
    assert alone == ids(2, everything)
    assert alone == ids(2, one_processor())
    assert alone == ids(len(everything) + 3, everything)
