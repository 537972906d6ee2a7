"""Early exit on SmolLM2: above every threshold it is plain decoding, below it the cache is still exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sample_prompts import PROMPTS
from test_bit_exact import bits, prefill

import forerun
from forerun.runtime.model import Model
from forerun.runtime.session import LoadedProgram, Session

pytestmark = pytest.mark.real_model


@pytest.mark.parametrize("drafter", ("none", "lookup"))
def test_above_one_equals_plain(keep_model: Model, drafter: str) -> None:
    for prompt in PROMPTS[:6]:
        plain = keep_model.generate(prompt, max_tokens=48).complete()
        never = keep_model.generate(
            prompt, max_tokens=48, drafter=drafter, exit="confidence:layers=10+20+25,threshold=1.01"
        ).complete()
        assert never.ids == plain.ids


@pytest.mark.parametrize(
    "exit_policy", ("confidence:layers=24+27,threshold=0.5", "confidence:layers=12,threshold=0.1")
)
def test_ids_do_not_depend_on_the_drafter(keep_model: Model, exit_policy: str) -> None:
    left = 0
    for prompt in PROMPTS[:6]:
        plain = keep_model.generate(prompt, max_tokens=48, exit=exit_policy, ignore_end=True).complete()
        for drafter in ("lookup:min_ngram=1,branches=2", "self:layers=20,tokens=3"):
            drafted = keep_model.generate(
                prompt, max_tokens=48, exit=exit_policy, drafter=drafter, ignore_end=True
            ).complete()
            assert drafted.ids == plain.ids, drafter
        left += sum(plain.stats.exits_per_layer.values())
    assert left > 0, "no row ever left early: the test shows nothing"


def test_cache_equals_full_depth_once_filled(compiled: Callable[..., Path]) -> None:
    model = forerun.load(compiled("keep"), context=256, threads=2)
    session = model.session
    generation = model.generate(
        PROMPTS[0], max_tokens=40, exit="confidence:layers=10+24,threshold=0.2", ignore_end=True
    ).complete()
    assert sum(generation.stats.exits_per_layer.values()) > 0
    sequence = 0
    length = session.length(sequence)
    # The tokens that went in: the prompt and all but the last of the answer.
    token_ids = [*generation.prompt_ids, *generation.ids][:length]
    rows = list(session.stage(sequence, [generation.ids[-1]]))
    logits = session.forward([(sequence, rows[0])]).logits[0].copy()  # full depth: carries every pending row
    session.commit(sequence, rows)
    assert session.pending(sequence) == 0
    other_session = Session(LoadedProgram(compiled("keep")), capacity=256, threads=1)
    fresh = prefill(other_session, token_ids)
    rows = list(other_session.stage(fresh, [generation.ids[-1]]))
    assert np.array_equal(bits(logits), bits(other_session.forward([(fresh, rows[0])]).logits[0]))
    other_session.commit(fresh, rows)
    for layer in range(session.config.layers):
        ours = session.read_kv(sequence, layer, 0, length + 1)
        full = other_session.read_kv(fresh, layer, 0, length + 1)
        for one, other in zip(ours, full, strict=True):
            assert np.array_equal(bits(one), bits(other)), f"layer {layer}"
    other_session.close()
    model.close()
