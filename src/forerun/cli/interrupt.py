"""Ctrl-C while an answer is generated: the answer ends after its current step and keeps its text."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forerun.runtime.generation import Generation


@contextmanager
def cancel_on_interrupt(generation: "Generation") -> Iterator[None]:
    """Turn the first Ctrl-C into `generation.cancel()`; the second one interrupts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)

    def cancel(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        generation.cancel()

    signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
