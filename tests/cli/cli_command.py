"""What the command-line tests get back from a command."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


Forerun = Callable[..., Done]


def check_error(done: Done, *words: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that holds `words`."""
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
