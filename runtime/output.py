"""From drawn tokens to text: whole characters only, end tokens and stop strings cut, one token at a time.

Tokens are taken one by one even when a verify call gives several, so that the cut is where plain decoding
cuts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from forerun.runtime.settings import Settings

FinishReason = Literal["stop", "length", "context_full", "cancelled"]
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Decoder(Protocol):
    """The part of a tokenizer that output needs."""

    def decode(self, token_ids: Sequence[int]) -> str: ...


class Detokenizer:
    """Text of a growing list of tokens, in pieces of whole characters.

    Decodes a short window: the tokens of the last piece, as the context that some decoders need for spaces,
    and those since. Replacement characters at the end may be a character whose last bytes are still to come,
    so they are held back. A window starts where a piece started, never inside a character.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._context_tokens = 0
        self._context_text = ""

    def feed(self, token_id: int) -> str:
        """The text that this token completes; may be empty."""
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        piece = text[len(self._context_text) :]
        if not piece or text.endswith(_REPLACEMENT):
            return ""
        del self._window[: self._context_tokens]
        self._context_tokens = len(self._window)
        self._context_text = self._tokenizer.decode(self._window)
        return piece

    def flush(self) -> str:
        """What was held back at the end: the replacement of a character that was never finished."""
        piece = self._tokenizer.decode(self._window)[len(self._context_text) :]
        self._window, self._context_tokens, self._context_text = [], 0, ""
        return piece


class StopMatcher:
    """Cuts text before the first stop string; holds back an end that could still become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.matched = False

    def feed(self, piece: str) -> str:
        """The text that is safe to show; after a match (`matched`) the text before it, then nothing more."""
        if self.matched or not self._stop:
            return "" if self.matched else piece
        text = self._held + piece
        starts = [start for start in map(text.find, self._stop) if start >= 0]
        if starts:
            self.matched, self._held = True, ""
            return text[: min(starts)]
        held = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """The text held back, now that nothing more will come."""
        held, self._held = self._held, ""
        return held


@dataclass(frozen=True)
class Taken:
    """How many of the tokens offered were kept, and the text that became certain."""

    count: int
    text: str


class Output:
    """The ids and the text of one answer, and why it ended (`finish_reason`, None while it goes on).

    `token_ids` include the end token, or the tokens of a stop string, that ended it; `text` includes neither.
    """

    def __init__(self, settings: Settings, tokenizer: Decoder) -> None:
        self._settings = settings
        self._detokenizer = Detokenizer(tokenizer)
        self._matcher = StopMatcher(settings.stop)
        self._pieces: list[str] = []
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """The text given so far."""
        return "".join(self._pieces)

    @property
    def remaining(self) -> int:
        """Tokens that may still be taken."""
        return self._settings.max_tokens - len(self.token_ids)

    def take(self, token_ids: Sequence[int]) -> Taken:
        """Keep tokens until one of them ends the answer."""
        pieces = []
        count = 0
        for token_id in token_ids:
            pieces.append(self._take_one(token_id))
            count += 1
            if self.finish_reason is not None:
                break
        return Taken(count, "".join(pieces))

    def finish(self, reason: FinishReason) -> str:
        """End the answer; returns the text that was held back."""
        assert self.finish_reason is None, "an answer ends once"
        self.finish_reason = reason
        text = self._matcher.feed(self._detokenizer.flush()) + self._matcher.flush()
        self._pieces.append(text)
        return text

    def _take_one(self, token_id: int) -> str:
        self.token_ids.append(token_id)
        if token_id in self._settings.end_token_ids:
            return self.finish("stop")
        text = self._matcher.feed(self._detokenizer.feed(token_id))
        self._pieces.append(text)
        if self._matcher.matched:
            return text + self.finish("stop")
        if self.remaining == 0:
            return text + self.finish("length")
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
