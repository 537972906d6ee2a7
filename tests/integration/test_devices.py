"""SmolLM2 on devices that this machine's processor plays: too slow for the suite, run by `make test-gpu-emulated`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from histories import append
from sample_prompts import PROMPTS
from test_device_bundles import DEVICES, needs_device

import forerun
from forerun.runtime.model import Model
from forerun.runtime.session import LoadedProgram, Session

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif("FORERUN_TEST_DEVICES" not in os.environ, reason="make test-gpu-emulated runs it"),
]
TOKENS = 16
DRAFTERS = ("lookup:min_ngram=1,branches=3", "auto", "feature:tokens=4", "self:layers=24,tokens=2")


@pytest.fixture(scope="module", params=DEVICES)
def bundle(request: pytest.FixtureRequest, compiled: Callable[..., Path]) -> Path:
    needs_device(request.param)
    return compiled("keep", request.param)


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[Model]:
    with forerun.load(bundle, context=1024) as model:
        yield model


@pytest.mark.parametrize("settings", ({}, {"temperature": 0.7, "seed": 11}), ids=("greedy", "sampled"))
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_ids_equal_plain_decoding(model: Model, drafter: str, settings: dict[str, float]) -> None:
    for prompt in PROMPTS[:2]:
        plain = model.generate(prompt, max_tokens=TOKENS, ignore_end=True, **settings).complete()
        found = model.generate(
            prompt, max_tokens=TOKENS, ignore_end=True, drafter=drafter, **settings
        ).complete()
        assert found.ids == plain.ids


def test_most_likely_tokens_are_the_cpus(bundle: Path, compiled: Callable[..., Path]) -> None:
    """A text's most likely tokens: where they differ, the CPU has them within a factor e^0.5 of each other.

    8-bit activations round apart, on two CPU targets as on a device: the differences of both are printed.
    """
    text = (Path(__file__).parent / "text.txt").read_text(encoding="utf-8")
    logits = {}
    for name, path in (("device", bundle), ("x86-64", compiled("keep", "x86-64")), ("cpu", compiled("keep"))):
        with LoadedProgram(path) as program, Session(program, capacity=1088) as session:
            with forerun.load(path, context=16) as model:
                ids = model.encode_prompt(text, raw=True)[:1024]
            logits[name] = append(session, session.create_sequence(), ids)
    theirs = logits["cpu"]
    rows = np.arange(len(theirs))
    for name in ("x86-64", "device"):
        differ = np.flatnonzero(logits[name].argmax(1) != theirs.argmax(1))
        margins = theirs.max(1)[differ] - theirs[rows, logits[name].argmax(1)][differ]
        listed = ", ".join(f"{at}: {margin:.3f}" for at, margin in zip(differ, margins, strict=True))
        print(f"{name} differs at {len(differ)} of {len(rows)} (position: margin of logits) {listed}")
        assert len(differ) <= 0.03 * len(rows)
        assert margins.max(initial=0.0) < 0.5
