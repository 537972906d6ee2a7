"""`text.bin`: a tokenizer as the core maps it into memory, laid out in `runtime/native/src/text/text_file.h`."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from forerun.compiler.text.chat_pieces import ROLES, ChatPieces
from forerun.compiler.text.compositions import composition_tables
from forerun.compiler.text.forms import Compose, Cut, Form, Put, Step, Substitute, read_form
from forerun.compiler.text.patterns import RUN, Program, all_characters, code_points_of
from forerun.compiler.text.tables import NONE, Pool, hash_of, ragged, slots, strings, words
from forerun.errors import CompileError

MAGIC = b"FRTEXT\0\1"
SPECIAL, ABSENT, BYTE = 1, 2, 4  # flags of a token
STRIPS_LEFT, STRIPS_RIGHT, NORMALIZED = 1, 2, 4  # flags of an added token
_CUT, _PUT, _SUBSTITUTE, _COMPOSE = range(4)
_ALIGNMENT = 8
MOST_TOKENS = 1 << 24
_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Language:
    """What a model's files say beside its tokenizer: special ids, and the pieces of its chat template or why there
    are none.
    """

    bos_token_id: int | None = None
    end_token_ids: tuple[int, ...] = ()
    add_bos: bool = False
    chat: ChatPieces | str = "the model has no chat template"


def text_file(tokenizer_json: str, language: Language | None = None) -> bytes:
    """The file for a tokenizer; raises `CompileError` for one that the core does not know."""
    try:
        document = json.loads(tokenizer_json)
        form = read_form(document)
        return _Writer(document, form, _library(tokenizer_json), language or Language()).write()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise CompileError(
            f"tokenizer.json lacks or garbles {error}; the native core cannot use it"
        ) from error


def _library(tokenizer_json: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exception
        raise CompileError(f"the tokenizers library cannot read tokenizer.json: {error}") from error


@cache
def byte_characters() -> Mapping[str, int]:
    """The characters that stand for bytes in byte-level tokens (GPT-2)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    characters = {chr(byte): byte for byte in plain}
    others = sorted(set(range(256)) - set(plain))
    return characters | {chr(256 + place): byte for place, byte in enumerate(others)}


class _Writer:
    def __init__(
        self, document: Mapping[str, Any], form: Form, library: Tokenizer, language: Language
    ) -> None:
        self._form, self._library, self._language = form, library, language
        self._vocabulary: dict[str, int] = document["model"]["vocab"]
        self._merges: Sequence[Any] = document["model"]["merges"]
        self._added: Sequence[Mapping[str, Any]] = document.get("added_tokens") or ()
        self._size = 1 + max(*self._vocabulary.values(), *(one["id"] for one in self._added), -1, -1)
        if self._size > MOST_TOKENS:
            raise CompileError(
                f"this tokenizer has token {self._size - 1}; the native core knows {MOST_TOKENS}"
            )
        self._pool = Pool()
        self._operations: list[tuple[int, int, int, int]] = []
        self._programs: list[tuple[int, int]] = []
        self._classes: list[tuple[tuple[int, int], ...]] = []
        self._class_numbers: dict[tuple[tuple[int, int], ...], int] = {}

    def write(self) -> bytes:
        form = self._form
        normalize, cut = self._steps(form.normalize), self._steps(form.cut)
        added = self._added_tokens()
        tokens = self._tokens()
        merges = self._merge_table()
        chat, refused = self._chat()
        settings = words(self._settings())
        composes = any(isinstance(step, Compose) for step in form.normalize)
        sections = (
            settings,
            *tokens,
            words(self._byte_ids()),
            *merges,
            self._symbols(),
            self._piece_slots(),
            normalize + cut,
            words(number for place in self._programs for number in place),
            words(number for operation in self._operations for number in operation),
            *ragged(self._classes),
            *self._pool.sections(),
            added,
            *(composition_tables() if composes else (b"",) * 4),
            words(self._language.end_token_ids),
            chat,
            refused,
        )
        return _joined(sections)

    def _settings(self) -> tuple[int, ...]:
        form, decoding, language = self._form, self._form.decoding, self._language
        unknown = NONE if form.unknown_token is None else self._vocabulary[form.unknown_token]
        chat = language.chat
        return (
            self._size,
            form.byte_level,
            form.byte_fallback and bool(self._fallbacks()),
            form.fuse_unknown,
            unknown,
            form.whole_pieces,
            len(form.normalize),
            self._class(code_points_of(r"\s")),
            decoding.byte_fallback,
            decoding.separates,
            NONE if decoding.mark is None else self._pool.number(decoding.mark),
            decoding.strips,
            NONE if language.bos_token_id is None else language.bos_token_id,
            language.add_bos,
            self._pool.number(chat) if isinstance(chat, str) else NONE,
            self._class(_spaces()),
        )

    def _steps(self, steps: Sequence[Step]) -> bytes:
        return words(number for step in steps for number in self._step(step))

    def _step(self, step: Step) -> tuple[int, int, int, int]:
        if isinstance(step, Cut):
            return _CUT, self._program(step.program), step.behavior, 0
        if isinstance(step, Put):
            return _PUT, self._pool.number(step.text), step.first_only, step.unless_there
        if isinstance(step, Substitute):
            return _SUBSTITUTE, self._pool.number(step.old), self._pool.number(step.new), 0
        return _COMPOSE, 0, 0, 0

    def _program(self, program: Program) -> int:
        """Add a program; its jumps stay relative to its beginning, its classes become those of the file."""
        numbers = [self._class(ranges) for ranges in program.classes]
        start = len(self._operations)
        for operation, a, b, c in program.operations:
            self._operations.append((operation, numbers[a] if operation == RUN else a, b, c))
        self._programs.append((start, len(program.operations)))
        return len(self._programs) - 1

    def _class(self, ranges: tuple[tuple[int, int], ...]) -> int:
        if ranges not in self._class_numbers:
            self._class_numbers[ranges] = len(self._classes)
            self._classes.append(ranges)
        return self._class_numbers[ranges]

    def _tokens(self) -> tuple[bytes, bytes, bytes]:
        """Where what each token says begins, all of that, and flags."""
        said: list[bytes] = [b""] * self._size
        flags = np.full(self._size, ABSENT, np.uint8)
        # Versions of the library differ in whether an added token says its content or that normalized.
        added = {str(self._library.id_to_token(one["id"])): one["id"] for one in self._added}
        special = {one["content"] for one in self._added if one["special"]}
        for text, token_id in (*self._vocabulary.items(), *added.items()):
            said[token_id] = self._bytes_of(text)
            flags[token_id] = SPECIAL * (text in special) + BYTE * self._is_byte(text)
        starts, texts = strings(said)
        return starts, texts, flags.tobytes()

    def _bytes_of(self, token: str) -> bytes:
        """What a token says, but for what its place among others decides."""
        if self._form.byte_level:
            known = [byte_characters().get(character) for character in token]
            # A token with other characters stands for itself.
            return token.encode() if None in known else bytes(byte for byte in known if byte is not None)
        token = self._written(token)
        return bytes([int(token[3:5], 16)]) if self._is_byte(token) else token.encode()

    def _is_byte(self, token: str) -> bool:
        return self._form.decoding.byte_fallback and _BYTE_TOKEN.fullmatch(self._written(token)) is not None

    def _written(self, token: str) -> str:
        for step in self._form.decoding.substitutes:
            token = token.replace(step.old, step.new)
        return token

    def _fallbacks(self) -> list[int]:
        """Ids of the tokens of bytes; all or none."""
        names = [f"<0x{byte:02X}>" for byte in range(256)]
        found = [self._vocabulary[name] for name in names if name in self._vocabulary]
        if len(found) not in (0, 256):
            raise CompileError(
                f"this tokenizer has tokens for {len(found)} of 256 bytes; the native core knows all or none"
            )
        return found

    def _byte_ids(self) -> list[int]:
        if self._form.byte_level:
            named = {byte: character for character, byte in byte_characters().items()}
            return [self._vocabulary.get(named[byte], NONE) for byte in range(256)]
        return (self._form.byte_fallback and self._fallbacks()) or [NONE] * 256

    def _merge_table(self) -> tuple[bytes, bytes]:
        """Left, right and merged ids by rank, and a hash table of ranks."""
        ids = self._vocabulary
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in self._merges)
        rows = [(ids[left], ids[right], ids[left + right]) for left, right in pairs]
        table = np.array(rows, np.uint32).reshape(-1, 3)
        keys = table[:, 0].astype(np.uint64) << np.uint64(32) | table[:, 1]
        # A pair that is named twice has the rank of its last mention, as in the library.
        return table.tobytes(), slots(keys, np.arange(len(table), dtype=np.uint32))

    def _symbols(self) -> bytes:
        """Code points that are tokens: hash table of (code point, id)."""
        if self._form.byte_level:
            return b""
        found = {ord(text): token_id for text, token_id in self._vocabulary.items() if len(text) == 1}
        points = np.array(list(found), np.uint64)
        places = np.frombuffer(slots(points, np.arange(len(found), dtype=np.uint32)), np.uint32)
        pairs = np.full((len(places), 2), NONE, np.uint32)
        taken = places != NONE
        pairs[taken, 0] = points[places[taken]]
        pairs[taken, 1] = np.array(list(found.values()), np.uint32)[places[taken]]
        return pairs.tobytes()

    def _piece_slots(self) -> bytes:
        """Pieces that are tokens: hash table of ids."""
        if not self._form.whole_pieces:
            return b""
        # No piece has characters that stand for no byte.
        known = {text: one for text, one in self._vocabulary.items() if byte_characters().keys() >= set(text)}
        keys = [hash_of(self._bytes_of(text)) for text in known]
        return slots(np.array(keys, np.uint64), np.array(list(known.values()), np.uint32))

    def _added_tokens(self) -> bytes:
        """Sorted by their bytes: text, id, flags."""
        rows: dict[tuple[bool, bytes], tuple[int, int, int]] = {}
        # Of two that are the same once they are normalized, the library finds the first, special ones before others.
        for one in sorted(self._added, key=lambda one: not one["special"]):
            if one["single_word"]:
                raise CompileError(
                    f"the added token {one['content']!r} is a single word, which the native core lacks"
                )
            text = str(one["content"])
            if one["normalized"] and self._library.normalizer is not None:
                text = self._library.normalizer.normalize_str(text)
            if not text:
                raise CompileError(f"the added token {one['id']} is empty, which the native core cannot find")
            flags = (
                STRIPS_LEFT * one["lstrip"] + STRIPS_RIGHT * one["rstrip"] + NORMALIZED * one["normalized"]
            )
            key = (bool(one["normalized"]), text.encode())
            rows.setdefault(key, (self._pool.number(text), one["id"], flags))
        ordered = sorted(rows.items(), key=lambda item: item[0][1])
        return words(number for _, row in ordered for number in row)

    def _chat(self) -> tuple[bytes, bytes]:
        """Texts between messages [4, 3], at the end [3], what is stripped [3]; (role, text) that none may hold."""
        chat = self._language.chat
        if isinstance(chat, str):
            return b"", b""
        number = self._pool.number
        joints = [(before, role) for before in ("", *ROLES) for role in ROLES]
        numbers = [number(chat.joints[joint]) if joint in chat.joints else NONE for joint in joints]
        numbers += [number(chat.ends[role]) if role in chat.ends else NONE for role in ROLES]
        numbers += [chat.strips.get(role, 0) for role in ROLES]
        refused = [
            (ROLES.index(role), number(text)) for role, texts in chat.refused.items() for text in texts
        ]
        return words(numbers), words(number for row in refused for number in row)


@cache
def _spaces() -> tuple[tuple[int, int], ...]:
    """What Python's `strip` takes away, as ranges."""
    points = [ord(character) for character in all_characters() if character.isspace()]
    starts = [point for point in points if point - 1 not in points]
    ends = [point for point in points if point + 1 not in points]
    return tuple(zip(starts, ends, strict=True))


def _joined(sections: Sequence[bytes]) -> bytes:
    """Magic, offset and size of each section, the sections."""
    at = len(MAGIC) + 16 * len(sections)
    directory, body = b"", b""
    for section in sections:
        padding = -(at + len(body)) % _ALIGNMENT
        body += bytes(padding)
        directory += struct.pack("<QQ", at + len(body), len(section))
        body += section
    return MAGIC + directory + body
