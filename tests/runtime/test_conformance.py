"""The native loop against its definition, on the tiny decoder; those with draft networks are in tests/training."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance import check_conformance, counts_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import RandomTrees

import forerun
from forerun.errors import ContextFullError, OptionError, RuntimeFailure
from forerun.runtime.drafters import DRAFTERS
from forerun.runtime.exits import EXITS
from forerun.runtime.model import Model
from forerun.runtime.settings import MAX_SEED
from forerun.runtime.shapes import SHAPES

SHAPED: tuple[str | None, ...] = (
    None,
    "chain:tokens=5",
    "tree:branches=3+2+1",
    "tree:branches=1+1+4",
    "grown:rows=9,reach=0.001,width=3,beam=2",
    "grown:rows=30,reach=0,width=8,beam=5,tokens=3",
    "cape:tokens=3,siblings=4",
)
DRAFTED = (
    "lookup",
    "lookup:min_ngram=1,max_ngram=2,tokens=9",
    "lookup:min_ngram=1,max_ngram=3,tokens=4,branches=5",
    "self:layers=1,tokens=6",
    "self:layers=2,threshold=0.05",
    "self:skip=a1+f1+f2,tokens=5",
    "self:skip=f0",
)
SPECS = st.one_of(
    st.tuples(st.sampled_from(DRAFTED), st.sampled_from(SHAPED)),
    st.tuples(st.sampled_from(["none", "auto", "auto:network=none"]), st.none()),
)
EXIT_SPECS = (
    "never",
    "confidence:layers=0+1,threshold=0.1",
    "confidence:layers=1,threshold=0.05",
    "confidence",
)


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[Model]:
    with forerun.load(tiny_bundle, threads=2, sequences=2) as model:
        yield model


@hypothesis_settings(max_examples=120, deadline=None)
@given(
    spec=SPECS,
    prompt=st.lists(st.integers(0, 36), min_size=1, max_size=30),
    max_tokens=st.integers(0, 40),
    temperature=st.sampled_from([0.0, 0.4, 1.0]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.8]),
    seed=st.integers(0, MAX_SEED),
    exits=st.sampled_from(EXIT_SPECS),
    ignore_end=st.booleans(),
    stop=st.sampled_from([(), ("a", "bc"), ("xyz",)]),
)
def test_both_loops_agree(
    model: Model, spec: tuple[str, str | None], prompt: list[int], exits: str, **options
) -> None:
    check_conformance(model, prompt, drafter=spec[0], shape=spec[1], exit=exits, **options)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    spec=SPECS, prompt=st.lists(st.integers(0, 3), min_size=1, max_size=12), exits=st.sampled_from(EXIT_SPECS)
)
def test_they_agree_to_the_end_of_the_context(
    model: Model, spec: tuple[str, str | None], prompt: list[int], exits: str
) -> None:
    """A prompt of few different tokens, so that copies are long; the context is full before max_tokens."""
    options = {"drafter": spec[0], "shape": spec[1], "exit": exits, "max_tokens": 1000, "ignore_end": True}
    assert check_conformance(model, prompt, **options).finish_reason == "context_full"


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    spec=SPECS, turns=st.lists(st.lists(st.integers(0, 36), min_size=1, max_size=8), min_size=2, max_size=4)
)
def test_a_conversation_goes_on_from_the_cache(
    model: Model, spec: tuple[str, str | None], turns: list[list[int]]
) -> None:
    text: list[int] = []
    for turn in turns:
        text += turn
        answer = check_conformance(
            model, text, reuse=True, drafter=spec[0], shape=spec[1], max_tokens=8, ignore_end=True
        )
        text += answer.ids


def test_every_name_is_known_to_both(model: Model) -> None:
    """A new drafter, shape or exit policy has to be built into the core as well."""
    for drafter in DRAFTERS:
        if drafter not in ("feature", "heads", "exit"):
            model.generate([1, 2], drafter=drafter, max_tokens=2, loop="native").complete()
    for shape in SHAPES:
        model.generate([1, 2], drafter="self", shape=shape, max_tokens=4, loop="native").complete()
    for exits in EXITS:
        model.generate([1, 2], exit=exits, max_tokens=4, loop="native").complete()


def test_answers_in_two_sequences_take_turns(model: Model) -> None:
    prompts = ([1, 2, 3, 1, 2], [9, 8, 7, 9, 8])
    options = {"drafter": "lookup:min_ngram=1", "max_tokens": 20, "ignore_end": True}
    alone = [model.generate(prompt, loop="python", **options).complete().ids for prompt in prompts]
    pair = [model.generate(prompt, loop="native", **options) for prompt in prompts]
    while any(answer.finish_reason is None for answer in pair):
        for answer in pair:
            next(answer, None)
    assert [answer.ids for answer in pair] == alone


def test_an_answer_can_be_cancelled_between_two_steps(model: Model) -> None:
    answer = model.generate([1, 2, 3], max_tokens=40, ignore_end=True, loop="native")
    first = next(answer)
    answer.cancel()
    assert list(answer) == []
    assert (answer.text, answer.finish_reason) == (first, "cancelled")
    assert answer.stats.generated_tokens == len(answer.ids)
    again = model.generate([1, 2, 3], max_tokens=40, ignore_end=True, loop="native").complete()
    assert again.stats.cached_tokens == 2
    assert again.ids[: len(answer.ids)] == answer.ids


def test_statistics_are_up_to_date_in_between(model: Model) -> None:
    answer = model.generate([1, 2, 3], max_tokens=12, ignore_end=True, loop="native")
    for _ in answer:
        assert answer.stats.generated_tokens == len(answer.ids)
    assert counts_of(answer)["prompt_tokens"] == 3


def test_the_prompts_progress_is_told(model: Model) -> None:
    told: list[tuple[int, int]] = []
    for loop in ("native", "python"):
        told.clear()
        prompt = [5] * 40
        answer = model.generate(
            prompt,
            max_tokens=1,
            loop=loop,
            reuse_cache=False,
            on_prefill=lambda *progress: told.append(progress),
        )
        answer.complete()
        assert told[-1] == (40, 40)
        assert told == sorted(told)


@pytest.mark.parametrize(
    "options",
    [
        {"drafter": "lookup:tokens=0"},
        {"drafter": "nothing"},
        {"drafter": "self:layers=9"},
        {"drafter": "self:skip=a9"},
        {"drafter": "none", "shape": "chain"},
        {"exit": "confidence:layers=7"},
        {"drafter": "feature"},
    ],
)
def test_both_refuse_what_cannot_be(model: Model, options: dict) -> None:
    for loop in ("native", "python"):
        with pytest.raises(OptionError):
            model.generate([1, 2], loop=loop, **options)
    assert model.generate([1, 2], max_tokens=1).complete().finish_reason in ("length", "stop")


def test_a_prompt_too_long_is_refused_by_both(model: Model) -> None:
    for loop in ("native", "python"):
        with pytest.raises(ContextFullError, match="the prompt has 1000 tokens"):
            model.generate([1] * 1000, loop=loop)


def test_the_native_loop_takes_no_objects(model: Model) -> None:
    with pytest.raises(OptionError, match="by their specs"):
        model.generate([1], drafter=RandomTrees(1), loop="native")
    with pytest.raises(OptionError, match="it must be auto, native or python"):
        model.generate([1], loop="rust")  # type: ignore[arg-type]


def test_closing_the_model_ends_an_answer(tiny_bundle: Path) -> None:
    with forerun.load(tiny_bundle, threads=1) as loaded:
        answer = loaded.generate([1, 2], max_tokens=30, ignore_end=True, loop="native")
        next(answer)
    with pytest.raises(RuntimeFailure, match="closed"):
        list(answer)
