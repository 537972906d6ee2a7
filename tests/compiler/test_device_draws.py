"""Tokens drawn on devices: from the blocks of logits that come along with a call, and from others.

The vocabulary has more blocks than come along.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from histories import check_draws
from test_device_bundles import DEVICES, compile_tiny, needs_device

from forerun.errors import RuntimeFailure
from forerun.runtime.session import LoadedProgram, Session
from forerun.runtime.settings import Sampling

VOCABULARY_SIZE = 1995


@pytest.fixture(scope="module", params=DEVICES)
def target(request: pytest.FixtureRequest) -> str:
    needs_device(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tiny(
        tmp_path_factory.mktemp("draws"), target, "qwen2", "q4", "f16", vocab_size=VOCABULARY_SIZE
    )


@pytest.mark.parametrize("count", (1, 12, 20))
def test_draws_are_those_from_all_logits(
    bundle: Path, target: str, count: int, rng: np.random.Generator
) -> None:
    """Of the likeliest block, which comes along with up to 16 rows, and of others, in any order of the rows."""
    with LoadedProgram(bundle, target) as program, Session(program) as session:
        check_draws(session, count, rng)


SETTINGS = (
    *(Sampling(temperature, seed=7) for temperature in (0.0, 1e-300, 1e-3, 0.2, 0.7, 1.0, 3.0, 1e3, 1e300)),
    *(Sampling(0.8, top_k, 0.95, seed=2**64 - 3) for top_k in (1, 5, 40, 64, 200)),
    Sampling(1.0, 0, 0.9),
)


@pytest.mark.parametrize("count", (1, 4, 16, 20))
def test_what_is_said_of_draws_changes_none(
    bundle: Path, target: str, count: int, rng: np.random.Generator
) -> None:
    """Each row may be drawn from otherwise, and other than was said; 20 rows are too many to prepare."""
    ids = rng.integers(0, VOCABULARY_SIZE, count).tolist()
    with LoadedProgram(bundle, target) as program, Session(program) as session:
        sequence = session.create_sequence()
        rows = [(sequence, row) for row in session.stage(sequence, ids)]
        logits = session.forward(rows).logits.copy()
        for first in range(len(SETTINGS)):
            said = [SETTINGS[(first + row) % len(SETTINGS)] for row in range(count)]
            session.rewind(sequence, 0)
            session.stage(sequence, ids)
            drawable = session.forward(rows, draws=True, sampling=said).drawable
            others = [SETTINGS[i] for i in rng.integers(len(SETTINGS), size=count)]
            pairs = [*enumerate(said), *enumerate(others)]
            for row, one in (pairs[i] for i in rng.permutation(2 * count)):
                numbers = {"temperature": one.temperature, "top_k": one.top_k, "top_p": one.top_p}
                numbers |= {"seed": one.seed, "position": row + 1}
                found = session.draw(drawable[row], **numbers)
                assert found == session.sample(logits[row], **numbers), (one, row)


def test_something_is_said_of_every_row_or_of_none(bundle: Path, target: str) -> None:
    with LoadedProgram(bundle, target) as program, Session(program) as session:
        sequence = session.create_sequence()
        rows = [(sequence, row) for row in session.stage(sequence, [1, 2, 3])]
        with pytest.raises(RuntimeFailure, match="sampling for 2 rows; the forward asks for 3"):
            session.forward(rows, draws=True, sampling=SETTINGS[:2])
