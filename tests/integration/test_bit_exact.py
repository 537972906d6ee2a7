"""The bit-exact rule on SmolLM2: a row's logits and cache entries do not depend on what shares its call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from forerun.runtime.session import LoadedProgram, Session

pytestmark = pytest.mark.real_model

TREE = (-1, 0, 0, 1, 1, 2, -1, 6, 7, 3, 3, 10)


@pytest.fixture(scope="module")
def program(compiled: Callable[..., Path]) -> Iterator[LoadedProgram]:
    loaded = LoadedProgram(compiled("keep"))
    yield loaded
    loaded.close()


@pytest.fixture
def tokens() -> np.ndarray:
    """Fresh random tokens in every run; printed when a test fails."""
    seed = int(np.random.SeedSequence().entropy) % 2**32
    print(f"seed {seed}")
    return np.random.default_rng(seed).integers(0, 49152, 1200)


def prefill(session: Session, tokens: Sequence[int], pieces: Sequence[int] = ()) -> int:
    """Commit tokens to a new sequence, in pieces of the given sizes and then the rest."""
    sequence = session.create_sequence()
    start = 0
    for size in [*pieces, len(tokens)]:
        chunk = list(map(int, tokens[start : start + size]))
        if chunk:
            rows = list(session.stage(sequence, chunk))
            session.forward([(sequence, row) for row in rows], logits=())
            session.commit(sequence, rows)
        start += size
    return sequence


def paths(parents: Sequence[int]) -> list[list[int]]:
    """Return each row's path from the root."""
    found: list[list[int]] = []
    for row, parent in enumerate(parents):
        found.append([*(found[parent] if parent >= 0 else []), row])
    return found


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint32)


# 126 and 1020: the tree crosses a border of attention's blocks.
@pytest.mark.parametrize("context", (5, 37, 126, 160, 1020))
def test_logits_of_a_row(program: LoadedProgram, tokens: np.ndarray, context: int) -> None:
    drafted = [int(t) for t in tokens[200 : 200 + len(TREE)]]
    results: dict[str, list[np.ndarray]] = {}
    for threads in (1, 2, 3):
        session = Session(program, sequences=3, capacity=1088, threads=threads)
        first, second = prefill(session, tokens[:context], [256] * 3), prefill(session, tokens[300:350])
        staged = list(session.stage(first, drafted, TREE))
        rows = [(first, row) for row in staged]
        results[f"tree, {threads} threads"] = list(session.forward(rows).logits.copy())
        session.commit(first, [])
        # The same tree between rows of another sequence.
        staged = list(session.stage(first, drafted, TREE))
        others = list(session.stage(second, [5, 6, 7]))
        mixed = [
            (second, others[0]),
            *((first, row) for row in staged),
            *((second, row) for row in others[1:]),
        ]
        results[f"beside others, {threads} threads"] = list(session.forward(mixed).logits[1:-2].copy())
        session.commit(first, [])
        session.commit(second, [])
        chains, alone = [], []
        for path in paths(TREE):
            chain = [drafted[row] for row in path]
            staged = list(session.stage(first, chain))
            chains.append(session.forward([(first, row) for row in staged]).logits[-1].copy())
            session.commit(first, [])
            staged = list(session.stage(first, chain))
            for row in staged:
                last = session.forward([(first, row)]).logits[0].copy()
            alone.append(last)
            session.commit(first, [])
        results[f"chain, {threads} threads"], results[f"alone, {threads} threads"] = chains, alone
        session.close()
    reference = results.pop("alone, 1 threads")
    for name, logits in results.items():
        for row, (one, other) in enumerate(zip(reference, logits, strict=True)):
            assert np.array_equal(bits(one), bits(other)), f"{name}, row {row}"


def test_a_prompt_in_pieces_gives_the_same_cache(program: LoadedProgram, tokens: np.ndarray) -> None:
    session = Session(program, sequences=3, capacity=512, threads=2)
    whole = prefill(session, tokens[:150])
    pieces = prefill(session, tokens[:150], (1, 17, 3, 64, 2))
    for layer in range(program.config.layers):
        for one, other in zip(
            session.read_kv(whole, layer, 0, 150), session.read_kv(pieces, layer, 0, 150), strict=True
        ):
            assert np.array_equal(bits(one), bits(other)), f"layer {layer}"
    session.close()


def test_rewind_equals_never_having_gone_there(program: LoadedProgram, tokens: np.ndarray) -> None:
    session = Session(program, sequences=2, capacity=512, threads=2)
    straight = prefill(session, tokens[:60])
    detour = prefill(session, tokens[:60])
    rows = list(session.stage(detour, [int(t) for t in tokens[100:140]]))
    session.forward([(detour, row) for row in rows], logits=())
    session.commit(detour, rows)
    session.rewind(detour, 60)
    session.rewind(straight, 47)
    session.rewind(detour, 47)
    logits = []
    for sequence in (straight, detour):
        rows = list(session.stage(sequence, [int(t) for t in tokens[47:60]]))
        logits.append(session.forward([(sequence, row) for row in rows]).logits.copy())
        session.commit(sequence, rows)
    assert np.array_equal(bits(logits[0]), bits(logits[1]))
    for layer in (0, 13, 29):
        for one, other in zip(
            session.read_kv(straight, layer, 0, 60), session.read_kv(detour, layer, 0, 60), strict=True
        ):
            assert np.array_equal(bits(one), bits(other))
    session.close()
