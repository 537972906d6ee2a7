"""What rows must give, found the slow way: one fresh sequence, one thread, one row and one sublayer at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forerun.runtime.session import LoadedProgram, Session, Step, full_steps


@dataclass(frozen=True)
class Truth:
    """One row, by the sublayers it has passed (0 … 2L): logits; by layer: its key and value [K, d]."""

    logits: tuple[np.ndarray, ...]
    keys: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]


class Reference:
    """Truth of the last token of any path, computed on demand and remembered."""

    def __init__(self, program: LoadedProgram, session_class: type[Session] = Session) -> None:
        self._session = session_class(program, threads=1)
        self._sequence = self._session.create_sequence()
        self._steps = full_steps(program.config.layers)
        self._cached: list[int] = []
        self._known: dict[tuple[int, ...], Truth] = {}

    def truth(self, token_ids: Sequence[int]) -> Truth:
        """The truth of the row that ends `token_ids`."""
        path = tuple(token_ids)
        if path not in self._known:
            shared = next(
                (i for i, (left, right) in enumerate(zip(self._cached, path, strict=False)) if left != right),
                min(len(self._cached), len(path)),
            )
            # The last row is run in any case: what it gives is not kept in the cache.
            for length in range(min(shared, len(path) - 1), len(path)):
                self._run(path[: length + 1])
        return self._known[path]

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """[V] at full depth."""
        return self.truth(token_ids).logits[-1]

    def _run(self, path: tuple[int, ...]) -> None:
        session, sequence = self._session, self._sequence
        session.rewind(sequence, len(path) - 1)
        session.stage(sequence, path[-1:])
        logits = [session.forward([(sequence, 0)], steps=()).logits[0].copy()]
        for step in self._steps:
            logits.append(session.forward([(sequence, 0)], steps=(step,)).logits[0].copy())
        session.commit(sequence, [0])
        self._cached = list(path)
        slot = len(path) - 1
        pairs = [session.read_kv(sequence, layer, slot, slot + 1) for layer in range(session.config.layers)]
        keys, values = (tuple(pair[which][:, 0] for pair in pairs) for which in (0, 1))
        self._known[path] = Truth(tuple(logits), keys, values)


def assert_same(left: np.ndarray, right: np.ndarray) -> None:
    """Bit-identical, not only close."""
    assert left.shape == right.shape
    assert left.tobytes() == right.tobytes(), f"largest difference {np.abs(left - right).max()}"


def assert_cache(session: Session, sequence: int, token_ids: Sequence[int], reference: Reference) -> None:
    """Every layer that a committed row has passed holds exactly its key and value."""
    for position in range(len(token_ids)):
        truth = reference.truth(token_ids[: position + 1])
        for layer in range((session.row_depth(sequence, position) + 1) // 2):
            keys, values = session.read_kv(sequence, layer, position, position + 1)
            assert_same(keys[:, 0], truth.keys[layer])
            assert_same(values[:, 0], truth.values[layer])


def prefill(session: Session, sequence: int, token_ids: Sequence[int]) -> np.ndarray:
    """Stage, run in full and commit tokens as one chain; returns the logits [n, V]."""
    rows = session.stage(sequence, token_ids)
    logits = session.forward([(sequence, row) for row in rows]).logits.copy()
    session.commit(sequence, list(rows))
    return logits


def skip(steps: Sequence[Step], *skipped: int) -> tuple[Step, ...]:
    """The steps without some sublayers."""
    return tuple(step for step in steps if step.sublayer not in skipped)
