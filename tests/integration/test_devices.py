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
def target(request: pytest.FixtureRequest) -> str:
    needs_device(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(target: str, compiled: Callable[..., Path]) -> Path:
    return compiled("keep", target)


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


@pytest.mark.parametrize(("quant", "most"), (("q8", 0.01), ("keep", 0.04)))
def test_most_likely_tokens_are_the_cpus(
    quant: str, most: float, target: str, compiled: Callable[..., Path]
) -> None:
    """A text's most likely tokens: where they differ, the CPU has them within a factor e^0.5 of each other.

    Activations of 8 bits, beside weights of 4, round apart on two CPU targets as on a device; those of 16 bits, beside
    weights of 8, nearly never. The differences of both are printed.
    """
    text = (Path(__file__).parent / "text.txt").read_text(encoding="utf-8")
    logits = {}
    for name in (None, "x86-64", target):
        path = compiled(quant, name)
        with LoadedProgram(path) as program, Session(program, capacity=1088) as session:
            with forerun.load(path, context=16) as model:
                ids = model.encode_prompt(text, raw=True)[:1024]
            logits[name] = append(session, session.create_sequence(), ids)
    theirs = logits[None]
    rows = np.arange(len(theirs))
    for name in ("x86-64", target):
        chosen = logits[name].argmax(1)
        differ = np.flatnonzero(chosen != theirs.argmax(1))
        margins = theirs.max(1)[differ] - theirs[rows, chosen][differ]
        listed = ", ".join(f"{at}: {margin:.3f}" for at, margin in zip(differ, margins, strict=True))
        print(
            f"{quant}: {name} differs at {len(differ)} of {len(rows)} (position: margin of logits) {listed}"
        )
        assert len(differ) <= most * len(rows)
        assert margins.max(initial=0.0) < 0.5
