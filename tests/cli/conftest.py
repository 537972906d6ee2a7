"""Makes the scripted model of tests/runtime importable, and runs the command line on it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# pytest's importlib mode adds no folder to the path.
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("cli", "runtime", "native")]


if TYPE_CHECKING:
    from cli_command import Done, Forerun


@pytest.fixture
def forerun(capsys: pytest.CaptureFixture[str]) -> "Forerun":
    """Run `forerun ARGUMENTS…` in this process."""
    from cli_command import Done

    from forerun.__main__ import main

    def run(*arguments: str) -> "Done":
        capsys.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as leaving:  # --help and --version
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A path that `load` answers with the scripted byte model, so that verbs are tested in milliseconds."""
    from byte_model import byte_model

    from forerun.runtime import model

    folder = tmp_path / "scripted"
    folder.mkdir()

    def load(
        path: Path, *, target: str | None, threads: int | None, context: int | None, sequences: int = 1
    ) -> model.Model:
        assert Path(path) == folder
        return byte_model(folder, ends=False, capacity=context or 600, sequences=sequences)

    monkeypatch.setattr(model, "load", load)
    return str(folder)
