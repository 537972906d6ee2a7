"""The driver's end of a worker: requests and answers, stopping it while others are measured, noticing its crash."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.race.environments import BUILD, ROOT, python_of
from benchmarks.race.interface import Entrant, RaceError

ANSWER_TIMEOUT_S = 600.0


class CrashError(RaceError):
    """A worker's process ended in the middle of a request."""


class RefusedError(RaceError):
    """A worker answered that it cannot do what was asked."""


@dataclass(frozen=True, eq=False)
class Role:
    """What a worker is started for; workers are kept by this."""

    entrant: Entrant
    model: Path
    threads: int
    context: int
    sequences: int
    slot: str = ""


class Client:
    """One worker. Between requests its process, with every thread it has, is stopped."""

    def __init__(self, role: Role, first_row: bool = False) -> None:
        """Start it and load the model; `started` is its answer. Raises `CrashError`, `RefusedError`."""
        self.role = role
        log = BUILD / role.entrant.environment / "worker.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        script = (
            f"import sys; sys.path.append({str(ROOT)!r}); "
            f"from benchmarks.race.worker import main; main({role.entrant.peer!r})"
        )
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [str(python_of(role.entrant.environment)), "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=BUILD,
            start_new_session=True,
            # Nothing may be fetched in the middle of a race, and nothing can be.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        try:
            self.started = self.request(
                "start",
                model=str(role.model),
                threads=role.threads,
                context=role.context,
                sequences=role.sequences,
                settings=dict(role.entrant.settings),
                first_row=first_row,
            )
        except BaseException:
            self.close()
            raise

    def request(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Let the worker run until it has answered. Raises `CrashError`, `RefusedError`."""
        self._signal(signal.SIGCONT)
        line = json.dumps({"request": name, **arguments}) + "\n"
        try:
            self._stdin.write(line.encode())
            self._stdin.flush()
        except BrokenPipeError:
            raise CrashError(self._describe_end()) from None
        answer = self._read_answer(name)
        self._signal(signal.SIGSTOP)
        for key in ("not_supported", "error"):
            if key in answer:
                raise RefusedError(answer[key])
        return answer

    def close(self) -> None:
        """End the process."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    @property
    def process(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def _stdin(self) -> Any:
        assert self._process.stdin is not None
        return self._process.stdin

    def _read_answer(self, name: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        file, received, end = self._process.stdout.fileno(), b"", time.monotonic() + ANSWER_TIMEOUT_S
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([file], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise CrashError(f"no answer to {name} within {ANSWER_TIMEOUT_S:.0f} s")
            piece = os.read(file, 1 << 16)
            if not piece:
                raise CrashError(self._describe_end())
            received += piece
        answer: dict[str, Any] = json.loads(received)
        return answer

    def _describe_end(self) -> str:
        status = self._process.wait()
        self._log.flush()
        if status < 0:
            return f"crashed ({signal.Signals(-status).name})"
        lines = Path(self._log.name).read_text(errors="replace").splitlines()
        return f"ended with status {status}: {lines[-1] if lines else 'no message'}"

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
