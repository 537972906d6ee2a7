"""Data folders: finished work survives interruptions, and nothing else is taken for it."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from forerun.errors import DataError, TrainingError
from forerun.training.data import CONVERSATIONS_FILE, Conversation, DataFolder, create_data, open_data
from forerun.training.lock import locked

MODEL = {"name": "tiny", "vocabulary_size": 9, "tokenizer": "abc"}
RECIPE = {"seed": 0}
ONE, TWO = Conversation((1, 2), (3, 4)), Conversation((), (5, 6, 7))


def made(folder: Path) -> DataFolder:
    data = create_data(folder, MODEL, RECIPE)
    data.append([ONE], 10, {"too short": 2})
    return data


def test_what_was_written_is_read(tmp_path: Path) -> None:
    data = made(tmp_path)
    data.append([TWO], 20, {"too short": 1})
    again = open_data(tmp_path)
    assert list(again.conversations()) == [ONE, TWO]
    assert (again.state.next_index, again.state.conversations, again.state.tokens) == (20, 2, 7)
    assert again.state.dropped == {"too short": 3}


def test_a_line_cut_off_by_an_interruption_is_dropped(tmp_path: Path) -> None:
    made(tmp_path)
    with (tmp_path / CONVERSATIONS_FILE).open("ab") as file:
        file.write(b'{"prompt":[1,2],"ans')
    again = create_data(tmp_path, MODEL, RECIPE)
    assert list(again.conversations()) == [ONE]
    again.append([TWO], 20, {})
    assert list(open_data(tmp_path).conversations()) == [ONE, TWO]


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device; what it held is intact"):
        data.append([TWO], 20, {})
    monkeypatch.undo()
    again = open_data(tmp_path)
    assert list(again.conversations()) == [ONE]
    assert again.state == data.state


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        ({**MODEL, "tokenizer": "xyz"}, RECIPE, "another model: tokenizer is 'abc' there and 'xyz' now"),
        (MODEL, {"seed": 1}, "another recipe: seed is 0 there and 1 now"),
    ],
)
def test_work_of_another_kind_is_not_gone_on_with(
    tmp_path: Path, model: dict[str, Any], recipe: dict[str, Any], message: str
) -> None:
    made(tmp_path)
    with pytest.raises(DataError, match=message):
        create_data(tmp_path, model, recipe)
    assert list(open_data(tmp_path).conversations()) == [ONE]


def test_folders_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("keep me")
    with pytest.raises(DataError, match="no data folder's; choose another"):
        create_data(tmp_path, MODEL, RECIPE)
    with pytest.raises(DataError, match=r"it has no data\.json"):
        open_data(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "keep me"


def test_damage_is_said(tmp_path: Path) -> None:
    data = made(tmp_path)
    path = tmp_path / CONVERSATIONS_FILE
    whole = path.read_bytes()
    path.write_bytes(b"#" + whole[1:])
    with pytest.raises(DataError, match="line 1 is damaged"):
        list(data.conversations())
    path.write_bytes(b"")
    with pytest.raises(DataError, match="holds 0 conversations"):
        list(data.conversations())
    state = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps({**state, "version": 99}))
    with pytest.raises(DataError, match="version 99"):
        open_data(tmp_path)
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        open_data(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(TrainingError, match="another process")
    with locked(tmp_path / "data"), refused, locked(tmp_path / "data"):
        pass
    with locked(tmp_path / "data"):
        create_data(tmp_path / "data", MODEL, RECIPE)
