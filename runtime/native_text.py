"""Text through the native core: what C programs read and write, for Python to be compared with.

`tokenizer.py`, `output.py` and `chat.py` are the definitions.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import byref, c_char_p, c_int32, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from forerun.errors import OptionError
from forerun.runtime.arrays import address_of, int32_array
from forerun.runtime.library import Handle, NativeMessage, NativePiece, NativeTextFacts, check, load_library
from forerun.runtime.program import LoadedProgram


@dataclass(frozen=True)
class Piece:
    """Text that became certain; `stopped`: a stop string was found, and the answer ended before it."""

    text: str
    stopped: bool


class NativeText:
    """The text of an opened bundle. Raises `BundleError` if it has none that the core knows, with the reason."""

    def __init__(self, program: LoadedProgram) -> None:
        self._library = load_library()
        pointer = c_void_p()
        check(self._library.forerun_text_open(program.handle.pointer, byref(pointer)))
        assert pointer.value is not None
        self._handle = Handle(pointer.value, self._library.forerun_text_release)
        facts = NativeTextFacts()
        check(self._library.forerun_text_describe(pointer, byref(facts)))
        self.vocabulary_size: int = facts.vocabulary_size
        self.bos_id: int | None = None if facts.bos_id < 0 else facts.bos_id
        self.add_bos = bool(facts.add_bos)
        self.has_chat = bool(facts.has_chat)
        self.end_ids: tuple[int, ...] = tuple(facts.end_ids[: facts.end_count]) if facts.end_count else ()

    def encode(self, text: str | bytes) -> list[int]:
        """Ids of a text; bytes that are no UTF-8 are read as U+FFFD."""
        data = text.encode() if isinstance(text, str) else text

        def call(ids: int | None, capacity: int, count: Any) -> int:
            return int(
                self._library.forerun_encode(self._handle.pointer, data, len(data), ids, capacity, count)
            )

        return [int(token_id) for token_id in _filled(call, np.int32, len(data) + 16)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens."""
        ids = int32_array(token_ids, "token ids")

        def call(text: int | None, capacity: int, count: Any) -> int:
            return int(
                self._library.forerun_decode(
                    self._handle.pointer, address_of(ids), len(ids), text, capacity, count
                )
            )

        return _filled(call, np.uint8, 8 * len(ids) + 16).tobytes().decode()

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for messages of `role` and `content`; `OptionError` if the template allows no such ones."""
        contents = [message["content"].encode() for message in messages]
        rows = (NativeMessage * len(messages))(
            *(
                NativeMessage(message["role"].encode(), content, len(content))
                for message, content in zip(messages, contents, strict=True)
            )
        )

        def call(text: int | None, capacity: int, count: Any) -> int:
            return int(
                self._library.forerun_chat_prompt(
                    self._handle.pointer, rows, len(messages), text, capacity, count
                )
            )

        return _filled(call, np.uint8, 0).tobytes().decode()

    def decoder(self, stop: Sequence[str] = ()) -> "NativeDecoder":
        """A decoder of answers that ends them before the first of the `stop` strings."""
        return NativeDecoder(self._handle, stop)


class NativeDecoder:
    """The text of one answer after the other, token by token."""

    def __init__(self, text: Handle, stop: Sequence[str]) -> None:
        self._library = load_library()
        pointer, stops = c_void_p(), (c_char_p * len(stop))(*(one.encode() for one in stop))
        check(
            self._library.forerun_decoder_create(text.pointer, stops, len(stop), byref(pointer)), OptionError
        )
        assert pointer.value is not None
        self._handle = Handle(pointer.value, self._library.forerun_decoder_release)
        self._piece = NativePiece()

    def feed(self, token_id: int) -> Piece:
        """The text that a token makes certain."""
        check(self._library.forerun_decoder_feed(self._handle.pointer, c_int32(token_id), byref(self._piece)))
        return self._given()

    def flush(self) -> Piece:
        """What was held back; the decoder is as new after it."""
        check(self._library.forerun_decoder_flush(self._handle.pointer, byref(self._piece)))
        return self._given()

    def _given(self) -> Piece:
        size = int(self._piece.bytes)
        return Piece(
            ctypes.string_at(self._piece.utf8, size).decode() if size else "", bool(self._piece.stopped)
        )


def _filled(call: Callable[[int | None, int, Any], int], dtype: Any, guess: int) -> np.ndarray:
    """What `call(address, capacity, count)` fills, asked for its size where the guess is too small."""
    count = c_size_t()
    for capacity in (guess, None):
        size = count.value if capacity is None else capacity
        array = np.empty(size, dtype)
        status = call(address_of(array) if size else None, size, byref(count))
        if count.value <= size:
            check(status, OptionError)
            return array[: count.value]
        if size == 0:
            check(status, OptionError)
    raise AssertionError("the size of a text changed between two calls")
