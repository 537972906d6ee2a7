"""A pure-Python twin of `session.Session` whose logits are a hash of the tokens: loop tests in milliseconds.

A row's logits depend on every token on its path, so a wrong commit, rewind or parent changes the output. At
partial depth they are the full ones blurred, less the deeper. A row that read inexact ancestors, or skipped a
sublayer, is inexact and gets other logits; it may be neither committed nor continued. The arrays of one
`forward` are overwritten by the next, and every misuse that the native core refuses raises here too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from forerun.errors import ContextFullError, RuntimeFailure
from forerun.runtime.abilities import Abilities
from forerun.runtime.protocol import Drawable
from forerun.runtime.sample import draw_token, mix, rank_tokens
from forerun.runtime.session import full_steps
from forerun.runtime.settings import Sampling

_MASK = 2**64 - 1


@dataclass(frozen=True)
class ScriptedConfig:
    layers: int = 4
    hidden_size: int = 3
    vocabulary_size: int = 11
    max_rows: int = 64
    max_gather: int = 64


@dataclass(frozen=True)
class ScriptedResult:
    logits: np.ndarray
    taps: dict[int, np.ndarray]
    drawable: Sequence[Drawable] = ()
    elapsed_ms: float = 0.0


@dataclass(frozen=True)
class Row:
    """One cached or staged row: `path` holds the tokens from the start of the sequence to it."""

    path: tuple[int, ...]
    parent: int
    done: int = 0
    is_exact: bool = True


@dataclass(frozen=True)
class Call:
    """One forward call, recorded for tests: rows, sublayers asked for, and what each row had passed."""

    rows: int
    sublayers: tuple[int, ...]
    done: tuple[int, ...]


class CachedSequence:
    def __init__(self) -> None:
        self.committed: list[Row] = []
        self.staged: list[Row] = []


class ScriptedSession:
    """See the module; `repeat` is how strongly the last two tokens alone decide the next (more loops)."""

    def __init__(
        self,
        config: ScriptedConfig | None = None,
        *,
        capacity: int = 256,
        threads: int | None = None,
        sequences: int = 8,
        seed: int = 0,
        repeat: float = 3.0,
    ) -> None:
        self.config = config or ScriptedConfig()
        self.capacity = capacity
        self.threads = threads or 2
        self.calls: list[Call] = []
        from scripted_drafts import ScriptedDrafts  # which needs this module

        self.drafts = ScriptedDrafts(self)
        self.abilities = Abilities()
        self.native_loop = None
        self.is_closed = False
        self._limit = sequences
        self._seed = seed
        self._repeat = repeat
        self._sequences: dict[int, CachedSequence] = {}
        self._last: list[np.ndarray] = []
        self._undrawn: np.ndarray | None = None

    def create_sequence(self) -> int:
        if len(self._sequences) >= self._limit:
            raise RuntimeFailure("no free sequence")
        number = next(index for index in range(self._limit) if index not in self._sequences)
        self._sequences[number] = CachedSequence()
        return number

    def release_sequence(self, seq: int) -> None:
        del self._sequences[seq]

    def fork(self, seq: int) -> int:
        twin = self.create_sequence()
        self._sequences[twin].committed = list(self._sequences[seq].committed)
        return twin

    def length(self, seq: int) -> int:
        return len(self._sequences[seq].committed)

    def staged(self, seq: int) -> int:
        return len(self._sequences[seq].staged)

    def pending(self, seq: int) -> int:
        return sum(row.done < self._full for row in self._sequences[seq].committed)

    def stage(self, seq: int, token_ids: Sequence[int], parents: Sequence[int] | None = None) -> range:
        sequence = self._sequences[seq]
        first = len(sequence.staged)
        if len(sequence.committed) + first + len(token_ids) > self.capacity:
            raise ContextFullError("the scripted context is full")
        if parents is None:
            parents = range(first - 1, first - 1 + len(token_ids))
        for token_id, parent in zip(token_ids, parents, strict=True):
            if not 0 <= token_id < self.config.vocabulary_size or not -1 <= parent < len(sequence.staged):
                raise RuntimeFailure(f"token {token_id} or parent {parent} out of range")
            path = (*self._path(sequence, parent), token_id)
            # The core gathers a branch that does not lie in place; a chain is never gathered.
            in_place = parent == len(sequence.staged) - 1
            if not in_place and len(path) - len(sequence.committed) > self.config.max_gather:
                raise RuntimeFailure("a branch is longer than max_gather")
            sequence.staged.append(Row(path, parent))
        return range(first, len(sequence.staged))

    def forward(
        self,
        rows: Sequence[tuple[int, int]],
        *,
        steps: Sequence[object] | None = None,
        logits: Sequence[int] | None = None,
        taps: Sequence[int] = (),
        draws: bool = False,
        sampling: Sequence[Sampling] = (),
    ) -> ScriptedResult:
        self._undrawn = None
        for old in self._last:
            old.fill(np.nan)
        if not 1 <= len(rows) <= self.config.max_rows or len(set(rows)) != len(rows):
            raise RuntimeFailure(f"{len(rows)} rows, or one of them twice")
        done_before = [self._sequences[seq].staged[row].done for seq, row in rows]
        for number in {seq for seq, _ in rows}:
            own = [done for (seq, _), done in zip(rows, done_before, strict=True) if seq == number]
            if own != sorted(own):
                raise RuntimeFailure("rows of a sequence must come in the order of their depth")
        canonical = full_steps(self.config.layers)
        chosen = [canonical.index(step) for step in (canonical if steps is None else steps)]
        self._check_gaps(rows)
        # Parents first: an exact row carries its ancestors to its own depth, an inexact ancestor taints it.
        for seq, row in sorted(rows):
            self._advance(self._sequences[seq], row, chosen)
        for (_, _), (before, layer) in zip(rows, ((b, t) for b in done_before for t in taps), strict=False):
            stands_there = before == 2 * layer + 2 < self._full
            if not stands_there and (2 * layer + 1 not in chosen or before > 2 * layer + 1):
                raise RuntimeFailure(f"a row did not run layer {layer} in this call")
        wanted = range(len(rows)) if logits is None else logits
        paths = [self._sequences[rows[i][0]].staged[rows[i][1]] for i in wanted]
        values = (
            np.stack([self._logits(row) for row in paths])
            if paths
            else np.empty((0, self.config.vocabulary_size))
        )
        states = {layer: np.stack([self._tap(self._row(*pair), layer) for pair in rows]) for layer in taps}
        self._last = [values, *states.values()]
        self._undrawn = values if draws else None
        self.calls.append(Call(len(rows), tuple(chosen), tuple(done_before)))
        if not draws:
            return ScriptedResult(values, states)
        return ScriptedResult(values[:0], states, [Drawable(index) for index in range(len(values))])

    def commit(self, seq: int, path: Sequence[int]) -> None:
        sequence = self._sequences[seq]
        parent = -1
        for row in path:
            kept = sequence.staged[row]
            if kept.parent != parent or not kept.is_exact or kept.done == 0:
                raise RuntimeFailure(f"row {row} cannot be committed: {kept}, expected parent {parent}")
            parent = row
        sequence.committed += [sequence.staged[row] for row in path]
        sequence.staged = []

    def rewind(self, seq: int, length: int) -> None:
        sequence = self._sequences[seq]
        if not 0 <= length <= len(sequence.committed):
            raise RuntimeFailure(f"cannot rewind to {length}")
        del sequence.committed[length:]
        sequence.staged = []

    def sample(
        self, logits: np.ndarray, *, temperature: float, top_k: int, top_p: float, seed: int, position: int
    ) -> int:
        assert not np.isnan(logits).any(), "these logits were overwritten by a later forward"
        return draw_token(logits, Sampling(temperature, top_k, top_p, seed), position)

    def draw(self, row: Drawable, **numbers: Any) -> int:
        assert self._undrawn is not None, "the last forward did not ask for draws"
        return self.sample(self._undrawn[row.index], **numbers)

    def rank(
        self,
        logits: np.ndarray,
        count: int,
        sampling: Sampling,
        position: int,
        token_ids: np.ndarray | None = None,
    ) -> list[tuple[int, float]]:
        return rank_tokens(logits, count, sampling, position, token_ids)

    def close(self) -> None:
        self.is_closed = True

    def tokens(self, seq: int) -> tuple[int, ...]:
        """The committed tokens, for tests."""
        committed = self._sequences[seq].committed
        return committed[-1].path if committed else ()

    @property
    def _full(self) -> int:
        return 2 * self.config.layers

    def _row(self, seq: int, row: int) -> Row:
        return self._sequences[seq].staged[row]

    def _path(self, sequence: CachedSequence, parent: int) -> tuple[int, ...]:
        if parent >= 0:
            return sequence.staged[parent].path
        return sequence.committed[-1].path if sequence.committed else ()

    def _check_gaps(self, rows: Sequence[tuple[int, int]]) -> None:
        """The core refuses this when it needs calls of their own for carried rows; here it is always
        refused.
        """
        listed = set(rows)
        for seq, row in rows:
            seen_gap = False
            parent = self._row(seq, row).parent
            while parent >= 0:
                if (seq, parent) in listed and seen_gap:
                    raise RuntimeFailure(f"a row between {parent} and {row} is not listed")
                seen_gap |= (seq, parent) not in listed
                parent = self._row(seq, parent).parent

    def _advance(self, sequence: CachedSequence, index: int, chosen: list[int]) -> None:
        row = sequence.staged[index]
        if not row.is_exact:
            raise RuntimeFailure(f"row {index} is inexact and cannot go on")
        run = [step for step in chosen if step >= row.done]
        is_canonical = run == list(range(row.done, row.done + len(run)))
        done = row.done + len(run)
        parent = sequence.staged[row.parent] if row.parent >= 0 else None
        is_exact = is_canonical and (parent is None or parent.is_exact)
        sequence.staged[index] = replace(row, done=done, is_exact=is_exact)
        if is_exact:
            self._carry(sequence, row.parent, done)

    def _carry(self, sequence: CachedSequence, parent: int, done: int) -> None:
        """Bring every ancestor to `done`: a row reads their keys in every layer it runs."""
        while parent >= 0:
            row = sequence.staged[parent]
            sequence.staged[parent] = replace(row, done=max(row.done, done))
            parent = row.parent
        sequence.committed = [replace(row, done=max(row.done, done)) for row in sequence.committed]

    def _logits(self, row: Row) -> np.ndarray:
        near = self._noise(row.path[-2:], 1)
        logits = self._repeat * near + self._noise(row.path, 2)
        if row.done < self._full or not row.is_exact:
            blur = 2.0 if not row.is_exact else 4.0 * (self._full - row.done) / self._full
            logits = logits + blur * self._noise(row.path, 3 + row.done)
        return logits.astype(np.float32)

    def _tap(self, row: Row, layer: int) -> np.ndarray:
        return self._noise(row.path, 100 + layer)[: self.config.hidden_size].astype(np.float32)

    def _noise(self, tokens: Sequence[int], salt: int) -> np.ndarray:
        """[V] numbers between 0 and 1 that depend on all of `tokens`."""
        key = mix(self._seed * 1000 + salt)
        for token_id in tokens:
            key = mix((key ^ (token_id + 1)) * 0x9E3779B97F4A7C15 & _MASK)
        return np.random.Generator(np.random.PCG64(key)).random(self.config.vocabulary_size)
