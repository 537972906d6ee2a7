"""The `text.bin` of a bundle, from the tokenizer and the chat template that lie in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forerun.compiler.text.chat_pieces import ChatPieces, chat_pieces
from forerun.compiler.text.text_file import Language, text_file
from forerun.errors import BundleError, CompileError
from forerun.runtime.chat import ChatTemplate
from forerun.runtime.tokenizer import Tokenizer

TEXT_NAME = "text.bin"
TOKENIZER, TEMPLATE = "tokenizer.json", "chat_template.jinja"


@dataclass(frozen=True)
class TextReport:
    """Why C has no text of a bundle, or no chat prompts; "" for what it has."""

    refusal: str = ""
    chat_refusal: str = ""

    def lines(self) -> list[str]:
        """What a user should know, a line each."""
        lines = [f"no {TEXT_NAME}, so text from Python only: {self.refusal}"] if self.refusal else []
        return lines + ([f"no chat prompts from C: {self.chat_refusal}"] if self.chat_refusal else [])


def write_text(folder: Path, settings: Mapping[str, Any]) -> TextReport:
    """Write text.bin beside the tokenizer.json in a bundle's folder, if the core knows its form.

    Args:
        folder: of a bundle; one without a tokenizer, such as a draft's, gets no text.bin.
        settings: the export's settings; their `tokenizer` names the special ids.
    """
    tokenizer = folder / TOKENIZER
    if not tokenizer.is_file():
        return TextReport()
    special = settings["tokenizer"]
    ends = tuple(special["eos_token_ids"])
    try:
        chat = _chat(folder, special)
        refusal = ""
    except CompileError as error:
        chat = refusal = str(error)
    language = Language(special.get("bos_token_id"), ends, bool(special["add_bos"]), chat)
    try:
        data = text_file(_read(tokenizer), language)
    except CompileError as error:
        return TextReport(refusal=str(error))
    (folder / TEXT_NAME).write_bytes(data)
    return TextReport(chat_refusal=refusal)


def _chat(folder: Path, special: Mapping[str, Any]) -> ChatPieces | str:
    """The pieces of the chat template, or that there is none."""
    path = folder / TEMPLATE
    if not path.is_file():
        return "the model has no chat template"
    tokenizer, ends, source = Tokenizer(folder / TOKENIZER), special["eos_token_ids"], _read(path)
    try:
        texts = {
            "bos_token": tokenizer.token(special.get("bos_token_id")),
            "eos_token": tokenizer.token(ends[0] if ends else None),
        }
        return chat_pieces(source, ChatTemplate(source, lambda: texts))
    except BundleError as error:
        raise CompileError(str(error)) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(f"{path.name} cannot be read: {error}") from error
