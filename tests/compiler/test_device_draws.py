"""Tokens drawn on devices: from the blocks of logits that come along with a call, and from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_device_bundles import DEVICES, compile_tiny, needs_device
from tiny_models import VOCABULARY_SIZE

from forerun.runtime.session import LoadedProgram, Session


@pytest.fixture(scope="module", params=DEVICES)
def target(request: pytest.FixtureRequest) -> str:
    needs_device(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tiny(tmp_path_factory.mktemp("draws"), target, "qwen2", "q4", "f16")


@pytest.mark.parametrize("count", (1, 12, 20))
def test_draws_are_those_from_all_logits(
    bundle: Path, target: str, count: int, rng: np.random.Generator
) -> None:
    """Of the likeliest block, which comes along with up to 16 rows, and of others, in any order of the rows."""
    ids = rng.integers(0, VOCABULARY_SIZE, count).tolist()
    settings = [(0.0, 0, 1.0), (2.0, 0, 1.0), (0.8, 40, 0.95), (1.0, 1, 1.0), (1.0, 0, 0.9)]
    # Mostly one block beside the likeliest.
    settings += [(float(temperature), 0, 1.0) for temperature in np.linspace(0.02, 0.6, 30)]
    with LoadedProgram(bundle, target) as program, Session(program) as session:
        sequence = session.create_sequence()
        rows = [(sequence, row) for row in session.stage(sequence, ids)]
        logits = session.forward(rows).logits.copy()
        session.rewind(sequence, 0)
        session.stage(sequence, ids)
        drawable = session.forward(rows, draws=True).drawable
        for row in rng.permutation(count).tolist():
            for temperature, top_k, top_p in settings:
                numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": 5}
                drawn = session.draw(drawable[row], **numbers, position=row)
                assert drawn == session.sample(logits[row], **numbers, position=row), numbers
