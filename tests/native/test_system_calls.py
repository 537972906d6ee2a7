"""On the way of a token the core asks the system for nothing; only a team that tires of spinning sleeps."""

from pathlib import Path

import pytest
from system_calls import calls_between_marks, trace_tokens

TOKENS = 60
# embed, head, and per layer of three: attention 3, feed_forward 2; then the end of the call.
BARRIERS = 1 + 1 + 3 * 5 + 1
# A thread that gives up spinning locks, sleeps and unlocks; the one it waits for locks, wakes and unlocks.
CALLS_OF_A_SLEEP = 6


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "sampled"])
def test_one_thread_makes_no_system_call(tiny_bundle: Path, tmp_path: Path, temperature: float) -> None:
    trace = trace_tokens(tiny_bundle, tmp_path, threads=1, tokens=TOKENS, temperature=temperature)
    assert not trace.calls
    assert len(trace.ids) >= TOKENS


def test_two_threads_do_nothing_but_sleep(tiny_bundle: Path, tmp_path: Path) -> None:
    """By design a thread that has spun for long sleeps on a futex: how often depends on what else runs here, but
    it is never more than once a barrier, and there is no other system call."""
    trace = trace_tokens(tiny_bundle, tmp_path, threads=2, tokens=TOKENS)
    assert set(trace.calls) <= {"futex", "restart_syscall"}
    assert trace.calls["futex"] <= CALLS_OF_A_SLEEP * (BARRIERS + 1) * TOKENS
    assert trace.ids == trace_tokens(tiny_bundle, tmp_path, threads=1, tokens=TOKENS).ids


def test_the_check_can_fail() -> None:
    log = """10 getppid() = 9
10 write(1, "x", 1) = 1
10 getppid() = 9
11 futex(0x7, FUTEX_WAIT <unfinished ...>
10 brk(NULL) = 0x55
--- SIGCHLD {si_signo=SIGCHLD} ---
11 <... futex resumed>) = 0
10 getppid() = 9
10 munmap(0x7, 8) = 0
"""
    assert calls_between_marks(log) == {"futex": 1, "brk": 1}
