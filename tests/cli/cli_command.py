"""Running a command in the tests' own process, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


Forerun = Callable[..., Done]


@pytest.fixture
def forerun(capsys: pytest.CaptureFixture[str]) -> Forerun:
    """Run `forerun ARGUMENTS…` in this process."""
    from forerun.__main__ import main

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as leaving:  # --help and --version
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def check_error(done: Done, *words: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that holds `words`."""
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
