"""forerun itself, through its public Python interface."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.race.interface import GEMMA, Cpu, Entrant, Options, Recipe, Runner

if TYPE_CHECKING:
    from forerun.runtime.model import Model


class Forerun:
    """The checkout's own environment; Q4_1 is the demo's file with `keep`, Q4_0 the same from a Q4_0 file. Gemma 3 is
    another model.
    """

    name: ClassVar[str] = "forerun"

    def entrants(self, cpu: Cpu) -> tuple[Entrant, ...]:
        """One for each source."""
        return tuple(
            Entrant(f"forerun {source}", self.name, "forerun", f"bundle-{source}", source)
            for source in ("Q4_1", "Q4_0", GEMMA)
        )

    def recipe(self, environment: str, cpu: Cpu) -> Recipe:
        """Nothing to make: the driver's own environment."""
        return Recipe(environment)

    def import_packages(self) -> None:
        """The runtime and what it needs."""
        import forerun.cli.measure
        import forerun.runtime.model  # noqa: F401

    def start(self, options: Options) -> Runner:
        """Load the bundle."""
        import forerun

        model = forerun.load(
            options.model, threads=options.threads, sequences=options.sequences, context=options.context
        )
        return ForerunRunner(model, options)


class ForerunRunner(Runner):
    """`Model.generate` as a user calls it; text, stopping rules and statistics are part of the time."""

    def __init__(self, model: Model, options: Options) -> None:
        self._model = model
        self._options = options

    def describe(self) -> dict[str, Any]:
        """Sizes; keys and values are float16."""
        import forerun
        from forerun.runtime.bundle import read_bundle

        config = read_bundle(self._options.model).config
        position_bytes = 2 * 2 * config["layers"] * config["kv_heads"] * config["head_dim"]
        return {
            "version": forerun.__version__,
            "threads": self._model.threads,
            "weights_bytes": (self._options.model / "weights.bin").stat().st_size,
            "kv_bytes_per_position": position_bytes,
        }

    def first_row(self, token_id: int) -> None:
        """One forward, as the first one after loading: no text, for which the tokenizer would have to be read."""
        session, sequence = (
            self._model.session,
            0,
        )  # the model's first, empty as long as it has answered nothing
        session.forward([(sequence, row) for row in session.stage(sequence, [token_id])])
        session.rewind(sequence, 0)

    def prefill(self, ids: Sequence[int]) -> float:
        """The call, from the ids to the first token's text."""
        self._model.generate(ids[:1], max_tokens=1, reuse_cache=False).complete()
        start = time.perf_counter()
        self._model.generate(ids, max_tokens=1, reuse_cache=False).complete()
        return 1000 * (time.perf_counter() - start)

    def decode(self, ids: Sequence[int], tokens: int) -> float:
        """All of `generate` but reading the prompt, most of which the cache has from the warm-up."""
        self._model.generate(ids, max_tokens=4, ignore_end=True).complete()
        start = time.perf_counter()
        answer = self._model.generate(ids, max_tokens=tokens + 1, ignore_end=True).complete()
        elapsed_ms = 1000 * (time.perf_counter() - start)
        assert answer.stats.generated_tokens == tokens + 1, "the context has room for all tokens"
        return elapsed_ms - answer.stats.prefill_ms

    def rows(self, ids: Sequence[int], rows: int, calls: int) -> float:
        """Verify calls of a drafter that fills them up."""
        self._time_rows(ids, rows, 2)
        return self._time_rows(ids, rows, calls)

    def _time_rows(self, ids: Sequence[int], rows: int, calls: int) -> float:
        from forerun.cli.bench_drafters import FixedRows

        drafter = FixedRows(rows, calls)
        answer = self._model.generate(
            ids, max_tokens=(calls + 1) * rows + 1, drafter=drafter, ignore_end=True
        )
        drafter.on_last_call = answer.cancel
        stats = answer.complete().stats
        assert stats.verify_calls == calls
        return stats.verify_ms / calls

    def together(self, ids: Sequence[int], tokens: int) -> float:
        """`generate_batch`; the prompts are a call like the others, each giving a token."""
        prompts = [[token_id] for token_id in ids]
        self._model.generate_batch(prompts, max_tokens=2, ignore_end=True, reuse_cache=False)
        start = time.perf_counter()
        self._model.generate_batch(prompts, max_tokens=tokens, ignore_end=True, reuse_cache=False)
        return 1000 * (time.perf_counter() - start)

    def answers(
        self, prompts: Sequence[Sequence[int]], tokens: int, drafted: int, ends: Sequence[int]
    ) -> float:
        """All of `generate` but reading the prompt; the planner drafts as much as pays."""
        drafter = "auto" if drafted else "none"
        self._model.generate(prompts[0], max_tokens=tokens, drafter=drafter, reuse_cache=False).complete()
        elapsed_ms, count = 0.0, 0
        for ids in prompts:
            start = time.perf_counter()
            answer = self._model.generate(
                ids, max_tokens=tokens, drafter=drafter, reuse_cache=False
            ).complete()
            elapsed_ms += 1000 * (time.perf_counter() - start) - answer.stats.prefill_ms
            count += answer.stats.generated_tokens - 1  # the first comes with the prompt
        return elapsed_ms / max(count, 1)

    def read_memory(self, read_bytes: int, passes: int) -> float:
        """The core's own measurement."""
        from forerun.runtime.session import Session

        session = self._model.session
        assert isinstance(session, Session)
        with session.profiler() as profiler:
            return read_bytes / profiler.read_bandwidth(read_bytes, passes) / 1e6

    def logits(self, ids: Sequence[int], path: Path) -> None:
        """In calls of 64 rows."""
        import numpy as np

        from forerun.quality import BundleLogits

        np.save(path, BundleLogits(self._options.model, self._options.threads)(np.array(ids, np.int64)))
