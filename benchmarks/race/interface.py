"""What the driver of the race and a peer know of each other. Imports nothing: every peer's environment loads it.

A peer is described in the driver's process (environments, entrants) and run in a worker process of its own, one for
each entrant and number of threads, where `Peer.start` loads the model and gives a `Runner`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol


class RaceError(Exception):
    """The race cannot go on as asked; the message says what to change."""


class NotSupportedError(Exception):
    """A peer cannot take this test; the message says why and goes into the report."""


@dataclass(frozen=True)
class Cpu:
    """The CPU's model name and feature flags, as the kernel lists them."""

    model: str
    flags: frozenset[str]

    @property
    def has_amx(self) -> bool:
        """Whether it multiplies int8 tiles."""
        return "amx_int8" in self.flags


@dataclass(frozen=True)
class Recipe:
    """A virtual environment: `steps` are argument lists for `pip install`, in order; `wheels` are packages built
    from their source with the environment `variables`, without the cache (it does not know the variables).
    """

    name: str
    steps: tuple[tuple[str, ...], ...] = ()
    wheels: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


# A source that is another model: it runs by itself, where it is asked for.
GEMMA = "Gemma3"


@dataclass(frozen=True)
class Entrant:
    """One line of the tables. `model` names a file of `files.py`, `settings` go to `Peer.start`; `source` is the
    weights' format, by which entrants are compared.
    """

    name: str
    peer: str
    environment: str
    model: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a worker loads: `context` positions for each of `sequences` sequences, on `threads` threads."""

    model: Path
    threads: int
    context: int
    sequences: int
    settings: Mapping[str, Any]


class Runner:
    """A loaded model. All times are wall milliseconds measured inside the worker, after a warm-up of its own; a
    test that a peer leaves as it stands here is reported as not supported.
    """

    def describe(self) -> dict[str, Any]:
        """Versions, settings and sizes (`weights_bytes`, `kv_bytes_per_position`) for the report."""
        return {}

    def first_row(self, token_id: int) -> None:
        """Run one row, without a warm-up: what a loaded model does first."""
        raise NotSupportedError("no way to run a single row")

    def prefill(self, ids: Sequence[int]) -> float:
        """Read `ids` into an empty cache, up to the choice of the next token; ms."""
        raise NotSupportedError("no way to time a prompt")

    def decode(self, ids: Sequence[int], tokens: int) -> float:
        """Choose `tokens` tokens greedily, one call each, after the context `ids`; ms for all, without the
        context.
        """
        raise NotSupportedError("no way to time decoding")

    def rows(self, ids: Sequence[int], rows: int, calls: int) -> float:
        """Compute the logits of `rows` rows in one call after the context `ids`; ms of a call, mean of `calls`."""
        raise NotSupportedError("its interface computes logits of one row for a call")

    def together(self, ids: Sequence[int], tokens: int) -> float:
        """Choose `tokens` tokens for each of the sequences, `ids[i]` the prompt of sequence i; ms for all."""
        raise NotSupportedError("its interface has no sequences that share a call")

    def answers(
        self, prompts: Sequence[Sequence[int]], tokens: int, drafted: int, ends: Sequence[int]
    ) -> float:
        """Answer prompts one after the other, greedily, each with up to `tokens` tokens or to one of `ends`; ms for a
        token, the prompts not counted. `drafted`: draft up to so many, with what it has without a second model.
        """
        raise NotSupportedError("no way to answer prompts")

    def read_memory(self, read_bytes: int, passes: int) -> float:
        """Read that many bytes of memory with the loaded threads, as fast as the machine can; ms, median of
        `passes`.
        """
        raise NotSupportedError("no way to time the machine's memory")

    def logits(self, ids: Sequence[int], path: Path) -> None:
        """Write the logits of a text read from the start, float32 [n, V], to `path` as .npy."""
        raise NotSupportedError("its interface gives no logits of every row")


class CachedRunner(Runner, ABC):
    """A runner whose cache takes rows after a context and gives them up again."""

    @abstractmethod
    def fill(self, ids: Sequence[int]) -> None:
        """Have exactly `ids` in the cache."""

    @abstractmethod
    def append(self, ids: Sequence[int], position: int) -> float:
        """Run rows from `position` on, with the logits of all; ms."""

    @abstractmethod
    def forget(self, length: int) -> None:
        """Drop what follows the first `length` positions."""

    def rows(self, ids: Sequence[int], rows: int, calls: int) -> float:
        """The same rows again and again, all with logits; the first two calls are not counted."""
        self.fill(ids)
        times_ms = []
        for _ in range(calls + 2):
            times_ms.append(self.append([*ids, *ids][:rows], len(ids)))
            self.forget(len(ids))
        return sum(times_ms[2:]) / calls


class SteppingRunner(CachedRunner):
    """A cached runner that chooses a token with each call."""

    @abstractmethod
    def step(self, token_id: int, position: int) -> int:
        """Run one row and choose the most likely token after it."""

    def decode(self, ids: Sequence[int], tokens: int) -> float:
        """A call and an argmax for each token."""
        self.fill(ids)
        token = self.step(self.step(ids[-1], len(ids)), len(ids) + 1)
        self.forget(len(ids))
        start = time.perf_counter()
        for position in range(len(ids), len(ids) + tokens):
            token = self.step(token, position)
        elapsed_ms = 1000 * (time.perf_counter() - start)
        self.forget(len(ids))
        return elapsed_ms


class Peer(Protocol):
    """A system in the race."""

    name: ClassVar[str]

    def entrants(self, cpu: Cpu) -> tuple[Entrant, ...]:
        """What it enters on this CPU."""
        ...

    def recipe(self, environment: str, cpu: Cpu) -> Recipe:
        """How to make one of its environments."""
        ...

    def import_packages(self) -> None:
        """Import what `start` needs, so that it loads nothing but the model."""
        ...

    def start(self, options: Options) -> Runner:
        """Load the model, in the worker's process."""
        ...
