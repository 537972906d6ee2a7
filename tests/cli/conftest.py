"""What the tests of the command line run it on: a bundle of the scripted model of tests/runtime."""

from pathlib import Path

import pytest
from cli_command import forerun  # noqa: F401 (a fixture)


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
