"""Many answers together: in every round each of them takes one step, and requests that agree share a forward.

Answers join as sequences become free and leave as they end. What an answer computes never depends on who is
beside it, so its ids are those it would have alone.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from typing import Any

from forerun.errors import BatchError, ForerunError, OptionError, SequencesBusyError
from forerun.runtime.generation import Generation
from forerun.runtime.protocol import Result
from forerun.runtime.request import Part, Request, run_request

# Told each piece of text and which prompt it answers; False cancels that answer.
OnText = Callable[[int, str], bool | None]


@dataclass(eq=False)
class Turn:
    """An answer under way: the prompt's place, and the request it waits with since `asked_at` (seconds)."""

    index: int
    generation: Generation
    request: Request = field(default_factory=lambda: Request(()))
    asked_at: float = 0.0


class Batch:
    """The answers to `count` prompts: `generations`, in the order of the prompts, as far as they have started."""

    def __init__(
        self, count: int, start: Callable[[int], Generation], lock: AbstractContextManager[Any]
    ) -> None:
        """`start(index)` begins an answer or raises `SequencesBusyError`; `lock` guards the session."""
        self.generations: list[Generation] = []
        self.causes: dict[int, Exception] = {}
        self._count = count
        self._start = start
        self._lock = lock
        self._active: list[Turn] = []
        self._may_admit = True

    def complete(self, on_text: OnText | None = None) -> list[Generation]:
        """Run to the end; raises `BatchError` if answers failed, and at once what `on_text` raises."""
        with closing(self.texts()) as texts:
            for index, text in texts:
                if on_text is not None and on_text(index, text) is False:
                    self.generations[index].cancel()
        if self.causes:
            shown = "; ".join(f"prompt {index}: {error!r}" for index, error in sorted(self.causes.items()))
            raise BatchError(
                f"{len(self.causes)} of {self._count} answers failed ({shown});"
                " the others are in this error's `generations`",
                self.generations,
                self.causes,
            ) from next(iter(self.causes.values()))
        return self.generations

    def texts(self) -> Generator[tuple[int, str], None, None]:
        """Pieces of text as they become certain; closing the generator ends all answers where they are."""
        try:
            self._admit()
            while self._active:
                with self._lock:
                    texts = self._step()
                yield from texts
                self._admit()
        finally:
            for turn in self._active:
                turn.generation.close()

    def _admit(self) -> None:
        """Start answers until the prompts or the sequences run out."""
        while self._may_admit and len(self.generations) < self._count:
            index = len(self.generations)
            try:
                generation = self._start(index)
            except SequencesBusyError:
                if not self._active:
                    raise
                self._may_admit = False
                return
            self.generations.append(generation)
            self._active.append(Turn(index, generation))

    def _step(self) -> list[tuple[int, str]]:
        """One step of every answer: all draft, share forwards until each has committed; their texts."""
        texts: list[tuple[int, str]] = []
        for turn in self._active:
            turn.generation.company.others = len(self._active) - 1
        waiting = [turn for turn in list(self._active) if self._advance(turn, None, texts)]
        while waiting:
            group, waiting = choose_group(waiting)
            # Everyone in the group reads its result before anyone drafts: a drafter's forward overwrites it.
            waiting += self._serve(group, texts)
        return texts

    def _serve(self, group: Sequence[Turn], texts: list[tuple[int, str]]) -> list[Turn]:
        """Run the requests of a group in one forward; returns those who ask again within their step."""
        requests = [turn.request for turn in group]
        start = time.perf_counter()
        try:
            result = run_request(group[0].generation.session, merge(requests))
        except ForerunError as error:
            if len(group) == 1:
                return [turn for turn in group if self._advance(turn, error, texts)]
            # A refused forward has changed nothing: find out whose fault it was.
            return [turn for one in group for turn in self._serve([one], texts)]
        end = time.perf_counter()
        again = []
        for turn, part in zip(group, split(requests, result), strict=True):
            others = time.perf_counter() - end + start - turn.asked_at
            turn.generation.stats.waited_ms += 1000 * others
            if self._advance(turn, part, texts):
                again.append(turn)
        return again

    def _advance(self, turn: Turn, outcome: Result | Exception | None, texts: list[tuple[int, str]]) -> bool:
        """Let one answer go on; whether it has a request. One that fails leaves the others alone."""
        generation = turn.generation
        try:
            event = generation.advance(outcome)
        except Exception as error:
            self.causes[turn.index] = error
            self._leave(turn)
            return False
        if isinstance(event, Request):
            turn.request, turn.asked_at = event, time.perf_counter()
            return True
        if event:
            texts.append((turn.index, event))
        if generation.finish_reason is not None:
            generation.close()
            self._leave(turn)
        return False

    def _leave(self, turn: Turn) -> None:
        self._active.remove(turn)
        self._may_admit = True


def choose_group(waiting: Sequence[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The first in line and those after it that can share its forward within `max_rows`; then the others."""
    first, max_rows = waiting[0].request, waiting[0].generation.session.config.max_rows
    group: list[Turn] = []
    others: list[Turn] = []
    rows = 0
    for turn in waiting:
        request = turn.request
        agrees = (request.sublayers, request.taps, request.draws) == (
            first.sublayers,
            first.taps,
            first.draws,
        )
        if agrees and rows + len(request.rows) <= max_rows:
            group.append(turn)
            rows += len(request.rows)
        else:
            others.append(turn)
    return group, others


def merge(requests: Sequence[Request]) -> Request:
    """One request for the rows of several that agree on all else."""
    first = requests[0]
    if len(requests) == 1:
        return first
    rows: list[tuple[int, int]] = []
    logits: list[int] = []
    for request in requests:
        indices = range(len(request.rows)) if request.logits is None else request.logits
        logits += [len(rows) + index for index in indices]
        rows += request.rows
    wanted = None if len(logits) == len(rows) else logits
    sampling = [one for request in requests for one in request.sampling]
    is_said = len(sampling) == len(logits)
    return replace(first, rows=rows, logits=wanted, sampling=sampling if is_said else ())


def split(requests: Sequence[Request], result: Result) -> list[Result]:
    """The result of a merged request as that of each: views, valid as long as the whole."""
    if len(requests) == 1:
        return [result]
    parts: list[Result] = []
    row = logit = 0
    for request in requests:
        last_row = row + len(request.rows)
        last_logit = logit + len(request.rows if request.logits is None else request.logits)
        taps = {layer: result.taps[layer][row:last_row] for layer in request.taps}
        parts.append(Part(result.logits[logit:last_logit], taps, result.drawable[logit:last_logit]))
        row, logit = last_row, last_logit
    return parts


def check_prompts(prompts: object) -> None:
    """Raise `OptionError` for a single prompt where a list of them belongs."""
    if not isinstance(prompts, Sequence) or isinstance(prompts, str):
        raise OptionError(f"prompts is one {type(prompts).__name__}; give a list of prompts")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, Sequence):
            raise OptionError(
                f"prompt {index} is one {type(prompt).__name__}; a prompt is a text, a list of token ids or a"
                " list of messages, and prompts is a list of those"
            )


def check_drafters(drafters: object, count: int) -> None:
    """Raise `OptionError` unless there is a drafter for each of `count` prompts, and no object twice."""
    if isinstance(drafters, Sequence) and len(drafters) == count:
        objects = [id(drafter) for drafter in drafters if not isinstance(drafter, str)]
        if len(set(objects)) == len(objects):
            return
    raise OptionError(
        f"drafter must be one spec for all, such as 'lookup', or a list of {count}, one for each prompt: an"
        " object drafts for one answer at a time"
    )
