"""What one generation did and how long it took. The definitions, once:

A verify call carries the root and the drafted rows. Of the tokens kept from a call, all but the last were
drafted rows: those are the accepted ones. So mean accepted length = 1 + accepted / verify calls = tokens kept
per call, acceptance rate = accepted / drafted, and generated tokens = 1 (drawn from the prompt) + verify
calls + accepted. Positions count from 1: the rows one below the root are at draft position 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from forerun.runtime.tree import Tree


@dataclass
class Origin:
    """Verify calls whose drafts were made by the same means of a drafter that has several."""

    calls: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass
class Stats:
    """Counters of one generation; times in milliseconds. Phases that did not run are 0.

    A forward that several answers share counts in full for each. `waited_ms` is the time that an answer in a
    batch, in the middle of a step, had to wait for the work of others; it is part of no phase.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    prefill_ms: float = 0.0
    draft_ms: float = 0.0
    verify_ms: float = 0.0
    commit_ms: float = 0.0
    verify_calls: int = 0
    drafted: int = 0
    accepted: int = 0
    drafted_per_position: list[int] = field(default_factory=list)
    accepted_per_position: list[int] = field(default_factory=list)
    exits_per_layer: dict[int, int] = field(default_factory=dict)
    waited_ms: float = 0.0
    origins: dict[str, Origin] = field(default_factory=dict)

    @property
    def decode_ms(self) -> float:
        """Time of everything after the prompt: draft, verify, accept and commit."""
        return self.draft_ms + self.verify_ms + self.commit_ms

    @property
    def mean_accepted_length(self) -> float:
        """Tokens per verify call, 0 before the first."""
        return 1 + self.accepted / self.verify_calls if self.verify_calls else 0.0

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted of drafted tokens; None when nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_s(self) -> float | None:
        """Decoded tokens per second, without prompt and first token; None before the second."""
        decoded = self.generated_tokens - 1
        return 1000 * decoded / self.decode_ms if decoded > 0 and self.decode_ms > 0 else None

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Prompt tokens run (not found in the cache) per second."""
        run = self.prompt_tokens - self.cached_tokens
        return 1000 * run / self.prefill_ms if run > 0 and self.prefill_ms > 0 else None

    def record_call(
        self, tree: Tree, path: Sequence[int], exit_layers: Sequence[int | None], origin: str = ""
    ) -> None:
        """Count one verify call of which the rows `path` were kept; `exit_layers` per row of the tree."""
        if origin:
            counts = self.origins.setdefault(origin, Origin())
            counts.calls += 1
            counts.drafted += len(tree) - 1
            counts.accepted += len(path) - 1
        self.verify_calls += 1
        self.drafted += len(tree) - 1
        self.accepted += len(path) - 1
        for depth in tree.depths[1:]:
            _count(self.drafted_per_position, depth - 1)
        for depth in range(1, len(path)):
            _count(self.accepted_per_position, depth - 1)
        self.accepted_per_position += [0] * (len(self.drafted_per_position) - len(self.accepted_per_position))
        for row in path:
            layer = exit_layers[row]
            if layer is not None:
                self.exits_per_layer[layer] = self.exits_per_layer.get(layer, 0) + 1

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of the body, less what it waited, to `<phase>_ms`, whether it succeeds or not."""
        start, waited_ms = time.perf_counter(), self.waited_ms
        try:
            yield
        finally:
            elapsed_ms = 1000 * (time.perf_counter() - start) - (self.waited_ms - waited_ms)
            name = f"{phase}_ms"
            setattr(self, name, getattr(self, name) + elapsed_ms)

    def to_dict(self) -> dict[str, Any]:
        """All counters and the derived numbers, ready for JSON."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "generated_tokens": self.generated_tokens,
            "prefill_ms": self.prefill_ms,
            "draft_ms": self.draft_ms,
            "verify_ms": self.verify_ms,
            "commit_ms": self.commit_ms,
            "decode_ms": self.decode_ms,
            "waited_ms": self.waited_ms,
            "tokens_per_s": self.tokens_per_s,
            "prefill_tokens_per_s": self.prefill_tokens_per_s,
            "verify_calls": self.verify_calls,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "mean_accepted_length": self.mean_accepted_length,
            "acceptance_rate": self.acceptance_rate,
            "drafted_per_position": list(self.drafted_per_position),
            "accepted_per_position": list(self.accepted_per_position),
            "origins": {name: asdict(counts) for name, counts in self.origins.items()},
            "exits_per_layer": {str(layer): count for layer, count in sorted(self.exits_per_layer.items())},
        }


def _count(counts: list[int], index: int) -> None:
    counts += [0] * (index + 1 - len(counts))
    counts[index] += 1
