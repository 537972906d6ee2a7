"""Opening a bundle for what it was made for: a compiled program, or an ONNX file as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from forerun.runtime.bundle import Bundle
from forerun.runtime.costs import KeptCosts
from forerun.runtime.drafts import Drafts
from forerun.runtime.native_loop import NativeLoop
from forerun.runtime.onnx.program import OnnxProgram
from forerun.runtime.program import ModelConfig
from forerun.runtime.protocol import SessionLike
from forerun.runtime.session import LoadedProgram, Session


class Program(Protocol):
    """A bundle opened for one of its targets, verified."""

    path: Path
    config: ModelConfig

    def close(self) -> None:
        """Give it up; sessions over it go on."""


# Sequences, positions of each (None: the model's), threads (None: the physical cores) → a session with its drafts.
OpenSession = Callable[[int, int | None, int | None], SessionLike]


def open_program(bundle: Bundle, target: str | None) -> tuple[Program, OpenSession]:
    """Open a bundle for a target (None: the best that this machine runs); returns it and what opens its sessions.

    Raises `BundleError`, `TargetError`, and `OptionError` where a package is missing.
    """
    if bundle.onnx_model:
        onnx = OnnxProgram(bundle, target)
        return onnx, onnx.open_session
    program = LoadedProgram(bundle.path, target)

    def open_session(sequences: int, capacity: int | None, threads: int | None) -> Session:
        session = Session(program, sequences=sequences, capacity=capacity, threads=threads)
        session.drafts = Drafts(session, program, bundle.drafts)
        session.native_loop = NativeLoop(session, lambda: KeptCosts.of(program.path, session.threads))
        return session

    return program, open_session
