"""Many answers together on the native core: the tiny decoder of tests/native instead of the scripted model."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_batch import Spoiling, check_same, drafters_with, own_drafter
from test_native_loop import NATIVE_SPECS, PROMPTS

import forerun
from forerun.errors import BatchError
from forerun.runtime.model import Model
from forerun.runtime.settings import MAX_SEED


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[Model]:
    with forerun.load(tiny_bundle, threads=2, sequences=3) as model:
        yield model


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    spec=st.one_of(st.sampled_from(NATIVE_SPECS), st.integers(0, 10**6)),
    prompts=st.lists(PROMPTS, min_size=1, max_size=6),
    temperature=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, MAX_SEED),
    exits=st.sampled_from(
        ["never", "confidence:layers=0+1,threshold=0.3", "confidence:layers=1,threshold=0"]
    ),
    max_tokens=st.integers(1, 30),
    ignore_end=st.booleans(),
)
def test_answers_together_are_those_alone(
    model: Model,
    spec: tuple[str, str | None] | int,
    prompts: list[list[int]],
    temperature: float,
    seed: int,
    exits: str,
    max_tokens: int,
    ignore_end: bool,
) -> None:
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "exit": exits,
        "ignore_end": ignore_end,
        "shape": spec[1] if isinstance(spec, tuple) else None,
    }
    drafters: list[Any] = [
        spec + index if isinstance(spec, int) else spec[0] for index in range(len(prompts))
    ]
    alone = [
        model.generate(prompt, drafter=own_drafter(drafter), reuse_cache=False, **options).complete()
        for prompt, drafter in zip(prompts, drafters, strict=True)
    ]
    together = model.generate_batch(
        prompts, drafter=[own_drafter(drafter) for drafter in drafters], reuse_cache=False, **options
    )
    again = model.generate_batch(prompts, drafter=[own_drafter(drafter) for drafter in drafters], **options)
    for one, other, third in zip(together, alone, again, strict=True):
        check_same(one, other)
        assert third.ids == other.ids


def test_a_full_context_ends_one_answer_only(tiny_bundle: Path) -> None:
    prompts = [[5] * 30, [6], [7] * 20, [8, 9]]
    options: dict[str, Any] = {"max_tokens": 25, "ignore_end": True, "drafter": "self:tokens=3"}
    with forerun.load(tiny_bundle, context=32, sequences=3) as model:
        alone = [model.generate(prompt, reuse_cache=False, **options).complete() for prompt in prompts]
        together = model.generate_batch(prompts, reuse_cache=False, **options)
    assert [one.finish_reason for one in together] == ["context_full", "length", "context_full", "length"]
    for one, other in zip(together, alone, strict=True):
        check_same(one, other)


def test_a_refused_forward_is_the_fault_of_one(model: Model) -> None:
    prompts = [[1], [2], [3], [4]]
    options: dict[str, Any] = {"max_tokens": 9, "ignore_end": True, "reuse_cache": False}
    alone = [model.generate(prompt, **options).complete() for prompt in prompts]
    with pytest.raises(BatchError, match=r"1 of 4 answers failed.*sublayers in order") as caught:
        model.generate_batch(prompts, drafter=drafters_with(Spoiling(), 4), **options)
    for index in (0, 2, 3):
        check_same(caught.value.generations[index], alone[index])
    again = model.generate_batch(prompts, **options)
    assert [one.ids for one in again] == [one.ids for one in alone]


def test_two_batches_and_an_answer_share_a_model(tiny_bundle: Path) -> None:
    """From three threads: steps take turns, sequences are shared out."""
    options: dict[str, Any] = {"max_tokens": 25, "ignore_end": True, "drafter": "self:tokens=2"}
    found: dict[int, list[list[int]]] = {}
    with forerun.load(tiny_bundle, sequences=8) as model:
        prompts = [[number, number + 1] for number in range(9)]
        alone = [model.generate(prompt, **options).complete().ids for prompt in prompts]

        def work(first: int) -> None:
            found[first] = [one.ids for one in model.generate_batch(prompts[first::2], **options)]

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
        generation = model.generate(prompts[0], **options)
        for thread in threads:
            thread.start()
        assert generation.complete().ids == alone[0]
        for thread in threads:
            thread.join()
    assert found == {0: alone[0::2], 1: alone[1::2]}


def answer_until_closed(
    model: Model, begun: threading.Event, closed: threading.Event, failures: list[str]
) -> None:
    texts = 0

    def on_text(*_: object) -> None:
        nonlocal texts
        texts += 1
        begun.set()
        if texts > 30:  # not to the end before the model is closed, however slow that is
            closed.wait()

    try:
        model.generate_batch([[1], [2], [3]], max_tokens=60, ignore_end=True, on_text=on_text)
    except BatchError as failure:
        failures.append(str(failure))


def test_a_model_closes_between_steps(tiny_bundle: Path) -> None:
    """Whatever thread is inside one: its answer then ends in an error."""
    for _ in range(20):
        failures: list[str] = []
        begun, closed = threading.Event(), threading.Event()
        model = forerun.load(tiny_bundle, sequences=4)
        thread = threading.Thread(target=answer_until_closed, args=(model, begun, closed, failures))
        thread.start()
        begun.wait()
        model.close()
        closed.set()
        thread.join()
        assert len(failures) == 1 and "closed" in failures[0]
