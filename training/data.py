"""A data folder: conversations as token ids, with a note of how far a synthesis has come.

`conversations.jsonl` holds one conversation a line; `data.json` says which model wrote them, and how many bytes of
the other file belong to finished work. What lies past them was cut off by an interruption and is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from forerun.errors import DataError
from forerun.staging import replaced_file
from forerun.training.lock import LOCK_FILE

DATA_FILE = "data.json"
CONVERSATIONS_FILE = "conversations.jsonl"
FORMAT = "forerun-data"
VERSION = 1


@dataclass(frozen=True)
class Conversation:
    """What the model read and what it wrote: token ids, template included. A plain text has no prompt."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Both."""
        return self.prompt_ids + self.answer_ids


@dataclass(frozen=True)
class DataState:
    """What `data.json` says.

    Attributes:
        model: name, vocabulary_size and tokenizer (the hash of its file) of the model.
        recipe: the settings that decide what is written.
        next_index: the first candidate that has not been tried.
        bytes: of the other file that hold finished work.
        conversations: lines in them.
        tokens: ids in them.
        dropped: candidates that were not kept, by reason.
    """

    model: Mapping[str, Any]
    recipe: Mapping[str, Any]
    next_index: int = 0
    bytes: int = 0
    conversations: int = 0
    tokens: int = 0
    dropped: Mapping[str, int] | None = None


def digest(data: bytes) -> str:
    """What tells bytes from others: the first 16 digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


class DataFolder:
    """A folder of conversations, appended to a batch at a time."""

    def __init__(self, path: Path, state: DataState) -> None:
        self.path, self.state = path, state

    def append(
        self, conversations: Sequence[Conversation], next_index: int, dropped: Mapping[str, int]
    ) -> None:
        """Add finished work; raises `DataError` if it cannot be written, and then the folder is as before."""
        lines = [
            json.dumps({"prompt": one.prompt_ids, "answer": one.answer_ids}, separators=(",", ":")) + "\n"
            for one in conversations
        ]
        data = "".join(lines).encode()
        totals = dict(self.state.dropped or {})
        for reason, count in dropped.items():
            totals[reason] = totals.get(reason, 0) + count
        state = replace(
            self.state,
            next_index=next_index,
            bytes=self.state.bytes + len(data),
            conversations=self.state.conversations + len(conversations),
            tokens=self.state.tokens + sum(len(one.token_ids) for one in conversations),
            dropped=totals,
        )
        try:
            with (self.path / CONVERSATIONS_FILE).open("r+b") as file:
                file.truncate(self.state.bytes)
                file.seek(self.state.bytes)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _write_state(self.path, state)
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror}; what it held is intact") from error
        self.state = state

    def conversations(self) -> Iterator[Conversation]:
        """Every conversation, in the order of writing; raises `DataError` for a damaged file."""
        path = self.path / CONVERSATIONS_FILE
        try:
            with path.open("rb") as file:
                lines = file.read(self.state.bytes).splitlines()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        if len(lines) != self.state.conversations:
            raise DataError(
                f"{path} holds {len(lines)} conversations, {DATA_FILE} says {self.state.conversations}; the"
                " folder is damaged: make it again with `forerun synth`"
            )
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                yield Conversation(tuple(map(int, entry["prompt"])), tuple(map(int, entry["answer"])))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number} is damaged: {error}") from error


def open_data(path: Path) -> DataFolder:
    """Open a folder that exists; raises `DataError` if it is none."""
    try:
        document = json.loads((path / DATA_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is no data folder: it has no {DATA_FILE}; make one with `forerun synth`"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path / DATA_FILE} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path / DATA_FILE} is not a data folder's; make one with `forerun synth`")
    if document.get("version") != VERSION:
        raise DataError(f"{path} has format version {document.get('version')}, this forerun reads {VERSION}")
    try:
        return DataFolder(path, DataState(**document["state"]))
    except (KeyError, TypeError) as error:
        raise DataError(f"{path / DATA_FILE} lacks or garbles {error}; make the folder again") from error


def create_data(path: Path, model: Mapping[str, Any], recipe: Mapping[str, Any]) -> DataFolder:
    """Open `path` to go on with it, or make it; raises `DataError` if it holds work of another kind."""
    if (path / DATA_FILE).exists():
        folder = open_data(path)
        for what, ours, theirs in (
            ("model", model, folder.state.model),
            ("recipe", recipe, folder.state.recipe),
        ):
            differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
            if differing:
                key = sorted(differing)[0]
                raise DataError(
                    f"{path} was made with another {what}: {key} is {theirs.get(key)!r} there and"
                    f" {ours.get(key)!r} now; go on with the same, or choose another folder"
                )
        return folder
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(file.name != LOCK_FILE for file in path.iterdir()):
            raise DataError(f"{path} holds files that are no data folder's; choose another folder")
        (path / CONVERSATIONS_FILE).touch()
        state = DataState(dict(model), dict(recipe))
        _write_state(path, state)
    except OSError as error:
        raise DataError(f"cannot write to {path}: {error.strerror}; choose another folder") from error
    return DataFolder(path, state)


def _write_state(path: Path, state: DataState) -> None:
    """Replace `data.json` in one step: it is always whole."""
    document = {"format": FORMAT, "version": VERSION, "state": asdict(state)}
    with replaced_file(path / DATA_FILE) as partial:
        partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
