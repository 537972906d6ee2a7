"""One answer as its caller sees it: an iterator of text that can be stopped, with ids and statistics."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

from forerun.runtime.generate import Begin, Company, Run, begin
from forerun.runtime.output import FinishReason, Output
from forerun.runtime.protocol import Result, SessionLike
from forerun.runtime.request import Request, drive
from forerun.runtime.stats import Stats


class Generation:
    """Iterate for the text in pieces; `text`, `ids`, `stats` and `finish_reason` hold what there is so far.

    `finish_reason` is "stop" (end token or stop string), "length" (max_tokens), "context_full", "cancelled",
    or None while the answer goes on. A `with` block, or the end of the iteration, frees the sequence it runs
    in.
    """

    def __init__(
        self,
        run: Run,
        output: Output,
        lock: AbstractContextManager[Any],
        release: Callable[[bool], None],
        begin: Begin = begin,
    ) -> None:
        """`lock` guards the session; `release(sound)` is called at the end: not sound after a failure. `begin` is the
        loop that runs it."""
        self._run = run
        self._output = output
        self._lock = lock
        self._release = release
        self._released = False
        self._cancel = threading.Event()
        self.prompt_ids = tuple(run.token_ids)
        with lock:
            self._started = begin(replace(run, cancelled=self._cancel.is_set), output)
        self._events = self._started.events
        self._pieces = drive(run.session, self._events)

    @property
    def ids(self) -> list[int]:
        """The generated token ids, the end token included if one was drawn."""
        return list(self._output.token_ids)

    @property
    def text(self) -> str:
        """The text of all pieces so far."""
        return self._output.text

    @property
    def stats(self) -> Stats:
        """Counters and times so far."""
        if not self._released:
            self._started.update_stats()
        return self._run.stats

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended, None while it goes on."""
        return self._output.finish_reason

    @property
    def company(self) -> Company:
        """The answers beside it, for the batch that knows them."""
        return self._run.company

    @property
    def run(self) -> Run:
        """Where it runs, for the model that keeps its rows."""
        return self._run

    @property
    def session(self) -> SessionLike:
        """The session it runs in."""
        return self._run.session

    def cancel(self) -> None:
        """Ask the answer to end before its next step; may be called from any thread or a signal handler."""
        self._cancel.set()

    def complete(self) -> "Generation":
        """Run to the end and return itself."""
        for _ in self:
            pass
        return self

    def close(self) -> None:
        """End the answer where it is ("cancelled" if it was not over) and free its sequence."""
        if self._released:
            return
        if self._output.finish_reason is None:
            self._output.finish("cancelled")
        self._end(sound=True)

    def _end(self, sound: bool) -> None:
        if not self._released:
            self._released = True
            self._release(sound)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next piece of text that is not empty."""
        if self._released:
            raise StopIteration
        try:
            with self._lock:
                text = next(piece for piece in self._pieces if piece)
        except StopIteration:
            self._end(sound=True)
            raise
        except BaseException:
            self._end(sound=False)
            raise
        return text

    def advance(self, outcome: Result | Exception | None = None) -> Request | str | None:
        """For a batch, which holds the session's lock: on to the next request or text, None at the end.

        `outcome` is what became of the request before, None after a text. The sequence is free after the end
        and after a failure, which is raised.
        """
        try:
            if isinstance(outcome, Exception):
                return self._events.throw(outcome)
            return self._events.send(outcome)
        except StopIteration:
            self._end(sound=True)
            return None
        except BaseException:
            self._end(sound=False)
            raise

    def __enter__(self) -> "Generation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_released", True):
            self.close()
