"""What a step asks of the model, and who answers.

A step is a generator: it yields a `Request` where it needs the model and is sent the result. So one loop serves
an answer alone (`drive`: every request is a forward of its own) and many together (`batch.py`: requests that
agree share a forward).
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from forerun.runtime.protocol import Drawable, Result, SessionLike
from forerun.runtime.session import full_steps
from forerun.runtime.settings import Sampling


@dataclass(frozen=True)
class Request:
    """One forward: staged `rows` (sequence, index) through the first `sublayers` of the model (None: all).

    `logits` are indices into `rows` (None: every row), `taps` layers whose hidden states are wanted. With `draws`
    the rows are only drawn from, and get stand-ins for their logits; `sampling` says how, for each of `logits`.
    """

    rows: Sequence[tuple[int, int]]
    sublayers: int | None = None
    logits: Sequence[int] | None = None
    taps: tuple[int, ...] = ()
    draws: bool = False
    sampling: Sequence[Sampling] = ()


@dataclass(frozen=True)
class Part:
    """Some rows of a result: logits [rows asked for, V] float32 or stand-ins, taps layer → [rows, D] float32."""

    logits: np.ndarray
    taps: dict[int, np.ndarray]
    drawable: Sequence[Drawable] = ()


Kept = TypeVar("Kept")
# A part of a step: yields requests, is sent their results, returns what it was for. A result is valid until the
# next request or, in an answer, the next text.
Asking = Generator[Request, Result, Kept]
# A whole answer: requests, and after each step the text that became certain, which may be empty.
Events = Generator[Request | str, Result | None, None]


def run_request(session: SessionLike, request: Request) -> Result:
    """Run one forward; its arrays are valid until the next. Raises `RuntimeFailure`."""
    sublayers = request.sublayers
    steps = None if sublayers is None else full_steps(session.config.layers)[:sublayers]
    return session.forward(
        request.rows,
        steps=steps,
        logits=request.logits,
        taps=request.taps,
        draws=request.draws,
        sampling=request.sampling,
    )


def drive(session: SessionLike, events: Events) -> Iterator[str]:
    """An answer alone: run each of its requests at once, pass its texts on."""
    try:
        event = next(events, None)
        while event is not None:
            if isinstance(event, Request):
                event = events.send(run_request(session, event))
            else:
                yield event
                event = next(events, None)
    finally:
        # After a failed forward the step still stands in the middle: let it book its times.
        events.close()
