"""The run itself: repetition by repetition, test by test, the entrants take turns, A B C … A B C …"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race.client import Client, CrashError, RefusedError, Role
from benchmarks.race.disturbance import cores_of_others, look
from benchmarks.race.interface import Entrant
from benchmarks.race.results import DISTURBED_CORES, EntrantInfo, Results, Sample
from benchmarks.race.trials import CONTEXT, FEW_ROWS_PEERS, MEMORY, START, Trial

Progress = Callable[[str], None]
# A sample during which others used more cores than this is taken again, so many tries in all.
TRIES = 3
# Load and peak memory are taken in a fresh process that reads a prompt of this size, then decodes.
START_THREADS, START_PROMPT, START_DECODED = 2, 512, 32


@dataclass
class Contest:
    """Entrants with their model files, the ids of a text to run on, and the workers that are up."""

    entrants: Sequence[Entrant]
    models: dict[str, Path]
    ids: Sequence[int]
    results: Results
    progress: Progress
    started: float = field(default_factory=time.monotonic)
    _workers: dict[tuple[object, ...], Client] = field(default_factory=dict)
    _refusals: dict[tuple[str, str], str] = field(default_factory=dict)

    def run_repetition(self, repetition: int, trials: Sequence[Trial], with_start: bool) -> None:
        """All tests once."""
        for trial in trials:
            for entrant in self.entrants:
                if trial.peers is None or entrant.peer in trial.peers:
                    self.progress(f"repetition {repetition + 1}: {trial.name}, {entrant.name}")
                    self.run_trial(repetition, trial, entrant)
        for entrant in self.entrants if with_start else ():
            if entrant.peer in FEW_ROWS_PEERS:
                self.progress(f"repetition {repetition + 1}: {START}, {entrant.name}")
                self.run_start(repetition, entrant)

    def run_trial(self, repetition: int, trial: Trial, entrant: Entrant) -> None:
        """One test of one entrant, in a worker that stays up."""

        def measure() -> float:
            arguments = (
                {"ids": list(self.ids[: trial.ids]), **trial.arguments} if trial.ids else trial.arguments
            )
            answer = self.worker(entrant, trial).request(trial.operation, **arguments)
            return trial.value(answer["ms"])

        self.attempt(repetition, trial.name, entrant, trial.unit, measure)

    def run_start(self, repetition: int, entrant: Entrant) -> None:
        """In a fresh process: the time to the first row, then the most memory beyond what it had before loading."""
        role = Role(entrant, self.models[entrant.model], START_THREADS, CONTEXT, 1)
        key = (entrant.name, START)

        def start() -> float:
            if key in self._workers:
                self._workers.pop(key).close()
            client = self._workers[key] = Client(role, first_row=True)
            return float(client.started["load_ms"] + client.started["first_row_ms"])

        def peak() -> float:
            client = self._workers[key]
            ids = list(self.ids[:START_PROMPT])
            client.request("prefill", ids=ids)
            client.request("decode", ids=ids, tokens=START_DECODED)
            return float(client.request("memory")["peak_bytes"] - client.started["rss_before_bytes"]) / 1e6

        self.attempt(repetition, START, entrant, "ms", start)
        if key in self._workers:
            self.attempt(repetition, MEMORY, entrant, "MB", peak)
        if key in self._workers:
            self._workers.pop(key).close()

    def attempt(
        self, repetition: int, test: str, entrant: Entrant, unit: str, measure: Callable[[], float]
    ) -> None:
        """Take down what `measure` gives, or why it could not. A refusal holds for the run; after a crash the
        entrant's workers start anew.
        """
        value, note, others = None, self._refusals.get((test, entrant.name), ""), 0.0
        try:
            if not note:
                value, others = self.measure_undisturbed(measure)
        except RefusedError as error:
            note = self._refusals[test, entrant.name] = str(error)
        except CrashError as error:
            note = str(error)
            self.close(entrant.name)
        self.results.samples.append(Sample(test, entrant.name, repetition, value, unit, note, others))

    def measure_undisturbed(self, measure: Callable[[], float]) -> tuple[float, float]:
        """A value and the cores that others used meanwhile; again, a few times, where they used too much."""
        tries: list[tuple[float, float]] = []
        while len(tries) < TRIES and (not tries or tries[-1][0] > DISTURBED_CORES):
            start = look(self.processes())
            value = measure()
            tries.append((cores_of_others(start, look(self.processes())), value))
            if tries[-1][0] > DISTURBED_CORES:
                self.progress(f"others used {tries[-1][0]:.2f} cores meanwhile")
        others, value = min(tries)
        return value, round(others, 3)

    def processes(self) -> list[int]:
        """The workers that are up."""
        return [client.process for client in self._workers.values()]

    def worker(self, entrant: Entrant, trial: Trial) -> Client:
        """The entrant's worker for a test, started if there is none."""
        key = (entrant.name, trial.threads, trial.sequences, trial.slot)
        if key not in self._workers:
            role = Role(entrant, self.models[entrant.model], trial.threads, trial.context, trial.sequences)
            self._workers[key] = Client(role)
            self.introduce(entrant, self._workers[key].started["description"])
        return self._workers[key]

    def introduce(self, entrant: Entrant, description: dict[str, Any]) -> None:
        """Put an entrant into the results, once, with what its first worker says of itself."""
        if all(known.name != entrant.name for known in self.results.entrants):
            self.results.entrants.append(EntrantInfo(entrant.name, entrant.peer, entrant.source, description))

    def logits_of(self, entrant: Entrant, path: Path) -> Callable[[np.ndarray], np.ndarray]:
        """A worker of the entrant as a function from token ids int64 [n] to logits float32 [n, V]; for use in
        `measure`.
        """
        trial = Trial("logits", "quality", "logits", 0, {}, "", None, slot="quality")

        def logits(ids: np.ndarray) -> np.ndarray:
            self.worker(entrant, trial).request("logits", ids=[int(token) for token in ids], path=str(path))
            found: np.ndarray = np.load(path)
            return found

        return logits

    def close(self, name: str | None = None) -> None:
        """End the workers of one entrant, or all."""
        for key in [key for key in self._workers if name in (None, key[0])]:
            self._workers.pop(key).close()
