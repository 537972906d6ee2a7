"""The process of one entrant: a JSON request on each line of standard input, a JSON answer on each line of output.

Started with the peer's name; the first request is `start`. Anything that libraries print goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.race.interface import NotSupportedError, Options, Runner
from benchmarks.race.peers import PEERS

_PR_SET_PDEATHSIG = 1


class Worker:
    """Carries out requests for one peer."""

    def __init__(self, peer: str) -> None:
        self._peer = PEERS[peer]()
        self._runner: Runner | None = None

    @property
    def runner(self) -> Runner:
        """The loaded model."""
        assert self._runner is not None, "start comes first"
        return self._runner

    def start(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Load the model and, if asked, run one row; importing the peer's packages does not count as loading."""
        chosen = Options(
            model=Path(options["model"]),
            threads=options["threads"],
            context=options["context"],
            sequences=options["sequences"],
            settings=options["settings"],
        )
        self._peer.import_packages()
        before = memory_bytes("VmRSS")
        start = time.perf_counter()
        self._runner = self._peer.start(chosen)
        loaded = time.perf_counter()
        first_row_ms = None
        if options["first_row"]:
            self._runner.first_row(1)
            first_row_ms = 1000 * (time.perf_counter() - loaded)
        return {
            "load_ms": 1000 * (loaded - start),
            "first_row_ms": first_row_ms,
            "rss_before_bytes": before,
            "description": self._runner.describe(),
        }

    def measure(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One test; see `Runner`."""
        operations: dict[str, Callable[..., Any]] = {
            "prefill": self.runner.prefill,
            "decode": self.runner.decode,
            "rows": self.runner.rows,
            "together": self.runner.together,
            "answers": self.runner.answers,
            "read_memory": self.runner.read_memory,
            "logits": self.runner.logits,
        }
        return {"ms": operations[operation](**arguments)}

    def memory(self) -> dict[str, Any]:
        """The most memory that was resident so far."""
        return {"peak_bytes": memory_bytes("VmHWM")}


def memory_bytes(field: str) -> int:
    """A size from the kernel's status of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise AssertionError(f"the kernel tells no {field}")


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request. Errors become answers: the driver reports them and goes on."""
    name = request.pop("request")
    try:
        if name == "start":
            return worker.start(request)
        if name == "memory":
            return worker.memory()
        return worker.measure(name, request)
    except NotSupportedError as error:
        return {"not_supported": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(peer: str) -> None:
    """Serve until standard input ends, or the driver: a stopped process would wait for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(peer)
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=answers, flush=True)
