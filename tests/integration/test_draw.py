"""SmolLM2: the token drawn from the maxima of blocks is the one drawn from all logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sample_prompts import PROMPTS

from forerun.runtime.model import Model
from forerun.runtime.session import LoadedProgram, Session
from forerun.runtime.settings import Sampling

pytestmark = pytest.mark.real_model

SETTINGS = (
    Sampling(),
    Sampling(0.7, seed=1),
    Sampling(1.5, seed=2),
    Sampling(0.8, 40, 0.95, 3),
    Sampling(1.3, 256, 0.9, 4),
    Sampling(1.0, 1, 1.0, 5),
    Sampling(1.0, 0, 0.9, 6),
    Sampling(1.0, 5000, 1.0, 7),
)


def test_same_token_as_from_all_logits(keep_model: Model, compiled: Callable[..., Path]) -> None:
    session = Session(LoadedProgram(compiled("keep")), capacity=64)
    sequence = session.create_sequence()
    for prompt in PROMPTS[:6]:
        token_ids = keep_model.encode_prompt(prompt)[:40]
        rows = [(sequence, row) for row in session.stage(sequence, token_ids)]
        logits = session.forward(rows).logits.copy()
        session.rewind(sequence, 0)
        session.stage(sequence, token_ids)
        drawable = session.forward(rows, draws=True).drawable
        for position, row in enumerate(drawable):
            for sampling in SETTINGS:
                numbers = {
                    name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "seed")
                }
                drawn = session.draw(row, **numbers, position=position)
                assert drawn == session.sample(logits[position], **numbers, position=position), sampling
        session.rewind(sequence, 0)
    session.close()
