"""Sequences over an ONNX file: `session.Session`'s calls, as far as such a file can answer them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forerun.errors import ContextFullError, OptionError, RuntimeFailure
from forerun.runtime.abilities import Abilities
from forerun.runtime.costs import KeptCosts
from forerun.runtime.no_drafts import NoDrafts
from forerun.runtime.onnx.engine import Engine
from forerun.runtime.onnx.rule import RowRule
from forerun.runtime.onnx.sequence import OnnxSequence
from forerun.runtime.program import ModelConfig
from forerun.runtime.protocol import DraftsLike, Drawable
from forerun.runtime.sample import draw_token, rank_tokens
from forerun.runtime.session import ForwardResult, Step, full_steps
from forerun.runtime.settings import Sampling

LIMITS = "a bundle of the target onnxruntime"


class OnnxSession:
    """See `session.Session`, whose calls these are. The rows of several sequences in one `forward` are run one sequence
    after the other. A session serves one thread at a time.
    """

    native_loop: None = None

    def __init__(
        self,
        engine: Engine,
        config: ModelConfig,
        rule: RowRule,
        *,
        threads: int,
        sequences: int = 1,
        capacity: int | None = None,
        bundle: Path,
    ) -> None:
        """`capacity` is positions of a sequence (default: all of the model's but one, which is for the row that a lone
        one runs with); `bundle` is the folder for which costs are kept.
        """
        self.config = config
        self.threads = threads
        self.capacity = min(capacity or config.context_length, config.context_length - 1)
        self.abilities = Abilities(
            trees=engine.signature.trees,
            layer_subsets=False,
            bit_exact=rule.chains,
            exact_trees=rule.trees,
            limits=LIMITS,
        )
        self.drafts: DraftsLike = NoDrafts(
            f"{LIMITS} runs no draft networks; use the drafters lookup, auto or none",
            lambda: KeptCosts.of(bundle, threads),
        )
        self._engine: Engine | None = engine
        self._least_rows = rule.least_rows
        self._limit = sequences
        self._sequences: dict[int, OnnxSequence] = {}
        self._logits = np.empty((0, config.vocabulary_size), np.float32)

    # ---- sequences ----

    def create_sequence(self) -> int:
        """A new, empty sequence. Raises `RuntimeFailure` if all are in use."""
        return self._add(OnnxSequence(self._open_engine.empty()))

    def release_sequence(self, seq: int) -> None:
        """Give the sequence's number back."""
        self._find(seq)
        del self._sequences[seq]

    def fork(self, seq: int) -> int:
        """A new sequence with the committed rows of `seq`; nothing is copied."""
        return self._add(self._find(seq).fork())

    def token_ids(self, seq: int) -> list[int]:
        """The tokens of the committed positions."""
        return list(self._find(seq).token_ids)

    def length(self, seq: int) -> int:
        """Committed positions."""
        return len(self._find(seq).token_ids)

    def staged(self, seq: int) -> int:
        """Staged rows."""
        return len(self._find(seq).staged)

    def save(self, seq: int, path: Path) -> None:
        """Raises `OptionError`: the rows of such a session are not saved."""
        raise OptionError(
            f"{LIMITS} saves no sequences: nothing says that another ONNX Runtime reads them alike"
        )

    def restore(self, path: Path) -> int:
        """Raises `OptionError`, as `save` does."""
        raise OptionError(f"{LIMITS} restores no sequences; read the prompt again")

    # ---- rows ----

    def stage(self, seq: int, token_ids: Sequence[int], parents: Sequence[int] | None = None) -> range:
        """Stage a row for each token; see `Session.stage`. Raises `OptionError` for rows that branch where the file
        takes no tree.
        """
        sequence = self._find(seq)
        first = len(sequence.staged)
        if len(sequence.token_ids) + first + len(token_ids) > self.capacity:
            raise ContextFullError(
                f"{len(token_ids)} rows do not fit: the sequence has {len(sequence.token_ids) + first} of"
                f" {self.capacity} positions"
            )
        chain = range(first - 1, first - 1 + len(token_ids))
        above = chain if parents is None else parents
        if list(above) != list(chain):
            self.abilities.require_trees("a draft whose rows branch")
        for row, (token_id, parent) in enumerate(zip(token_ids, above, strict=True), start=first):
            if not 0 <= token_id < self.config.vocabulary_size or not -1 <= parent < row:
                raise RuntimeFailure(
                    f"row {row} has token {token_id} and parent {parent}; tokens are below"
                    f" {self.config.vocabulary_size}, parents are earlier rows or -1"
                )
        sequence.stage(token_ids, above)
        return range(first, len(sequence.staged))

    def commit(self, seq: int, path: Sequence[int]) -> None:
        """Keep the staged rows `path` (root first, each the parent of the next), drop the others."""
        self._find(seq).commit(self._open_engine, path)

    def rewind(self, seq: int, length: int) -> None:
        """Go back to `length` committed positions; drops staged rows."""
        self._find(seq).rewind(length)

    # ---- computing ----

    def forward(
        self,
        rows: Sequence[tuple[int, int]],
        *,
        steps: Sequence[Step] | None = None,
        logits: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        draws: bool = False,
        sampling: Sequence[Sampling] = (),
    ) -> ForwardResult:
        """Run staged rows, given as (sequence, index): of each sequence the next ones that have not run, in order.

        Raises `OptionError` for `steps` other than the whole model and for `taps` that the file does not give,
        `RuntimeFailure` for other rows.
        """
        engine = self._open_engine
        if steps is not None and tuple(steps) != full_steps(self.config.layers):
            self.abilities.require_layer_subsets("this call")
        missing = [layer for layer in taps if layer not in engine.signature.taps]
        if missing:
            raise OptionError(
                f"this ONNX file gives no hidden states after layer {missing[0]}: drafters and training that read them"
                " need a model that forerun exported"
            )
        numbers = dict.fromkeys(seq for seq, _ in rows)
        indices = {number: [row for seq, row in rows if seq == number] for number in numbers}
        self._check_rows(rows, indices)
        start = time.perf_counter()
        found = np.empty((len(rows), self.config.vocabulary_size), np.float32)
        states = {layer: np.empty((len(rows), self.config.hidden_size), np.float32) for layer in taps}
        for number, own in indices.items():
            result = self._sequences[number].run(engine, len(own), self._least_rows, taps)
            places = [place for place, (seq, _) in enumerate(rows) if seq == number]
            found[places] = result.logits
            for layer in taps:
                states[layer][places] = result.taps[layer]
        self._logits = found if logits is None else found[list(logits)]
        elapsed_ms = 1000 * (time.perf_counter() - start)
        if not draws:
            return ForwardResult(self._logits, states, elapsed_ms)
        drawable = tuple(Drawable(index) for index in range(len(self._logits)))
        return ForwardResult(self._logits[:0], states, elapsed_ms, drawable=drawable)

    def sample(
        self, logits: np.ndarray, *, temperature: float, top_k: int, top_p: float, seed: int, position: int
    ) -> int:
        """Draw the token at absolute `position` from `logits` ([V] float32); `sample.py` defines which.

        Raises `OptionError` for a setting out of range, `RuntimeFailure` for logits that hold NaN.
        """
        if np.isnan(logits).any():
            raise RuntimeFailure("the logits hold NaN: the model or its weights are broken")
        return draw_token(logits, Sampling(temperature, top_k, top_p, seed), position)

    def draw(self, row: Drawable, **numbers: Any) -> int:
        """Draw the token at a position from a row of the last `forward`; see `sample`."""
        return self.sample(self._logits[row.index], **numbers)

    def rank(
        self,
        logits: np.ndarray,
        count: int,
        sampling: Sampling,
        position: int,
        token_ids: np.ndarray | None = None,
    ) -> list[tuple[int, float]]:
        """The up to `count` best of a draft's logits; see `sample.rank_tokens`."""
        return rank_tokens(logits, count, sampling, position, token_ids)

    def close(self) -> None:
        """Free the file and the caches."""
        self._sequences = {}
        self._engine = None

    # ---- the rest is between these calls ----

    @property
    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeFailure("the session is closed")
        return self._engine

    def _add(self, sequence: OnnxSequence) -> int:
        free = [number for number in range(self._limit) if number not in self._sequences]
        if not free:
            raise RuntimeFailure(f"all {self._limit} sequences are in use; release one")
        self._sequences[free[0]] = sequence
        return free[0]

    def _find(self, seq: int) -> OnnxSequence:
        if seq not in self._sequences:
            raise RuntimeFailure(f"there is no sequence {seq}")
        return self._sequences[seq]

    def _check_rows(self, rows: Sequence[tuple[int, int]], indices: Mapping[int, Sequence[int]]) -> None:
        if not 1 <= len(rows) <= self.config.max_rows:
            raise RuntimeFailure(f"{len(rows)} rows; one forward takes 1 to {self.config.max_rows}")
        for number, own in indices.items():
            ran = self._find(number).ran
            if own != list(range(ran, ran + len(own))) or own[-1] >= len(self._sequences[number].staged):
                raise RuntimeFailure(
                    f"rows {own} of sequence {number}: {LIMITS} runs staged rows in order, the next is {ran} of"
                    f" {len(self._sequences[number].staged)}"
                )
