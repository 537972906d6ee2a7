"""Tokens drawn on devices: from the blocks of logits that come along with a call, and from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from histories import check_draws
from test_device_bundles import DEVICES, compile_tiny, needs_device

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
    with LoadedProgram(bundle, target) as program, Session(program) as session:
        check_draws(session, count, rng)
