"""The loop on the native core: the tiny decoder of tests/native instead of the scripted model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import RandomTrees
from test_same_ids import SPECS

import forerun
from forerun.errors import BundleError, ContextFullError, OptionError, TargetError
from forerun.runtime.model import Model
from forerun.runtime.sample import draw_token
from forerun.runtime.settings import MAX_SEED, Sampling

# The tiny decoder has 3 layers: layer numbers of the scripted model's specs that fit.
NATIVE_SPECS = [
    (spec.replace("layers=3", "layers=2").replace("a3", "a2"), shape)
    for spec, shape in SPECS
    # Those with networks need a bundle that has them: tests/training.
    if not spec.startswith(("feature", "heads", "exit", "auto:network=exit", "auto:network=heads"))
]
PROMPTS = st.lists(st.integers(0, 36), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[Model]:
    with forerun.load(tiny_bundle, threads=2, sequences=2) as model:
        yield model


def chosen(model: Model, spec: tuple[str, str | None] | int) -> dict[str, Any]:
    """Options of `generate` for a spec, or for a seed of the adversarial drafter."""
    if isinstance(spec, int):
        return {"drafter": RandomTrees(spec, taps=(0, 2))}
    return {"drafter": spec[0], "shape": spec[1]}


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    spec=st.one_of(st.sampled_from(NATIVE_SPECS), st.integers(0, 10**6)),
    prompt=PROMPTS,
    temperature=st.sampled_from([0.0, 0.3, 1.0]),
    top_k=st.sampled_from([0, 5]),
    seed=st.integers(0, MAX_SEED),
    exits=st.sampled_from(
        ["never", "confidence:layers=0+1,threshold=0.3", "confidence:layers=1,threshold=0"]
    ),
    loop=st.sampled_from(["auto", "python"]),
)
def test_every_drafter_gives_the_ids_of_plain_decoding(
    model: Model,
    spec: tuple[str, str | None] | int,
    prompt: list[int],
    temperature: float,
    top_k: int,
    seed: int,
    exits: str,
    loop: str,
) -> None:
    options: dict[str, Any] = {
        "max_tokens": 40,
        "temperature": temperature,
        "top_k": top_k,
        "seed": seed,
        "exit": exits,
        "ignore_end": True,
    }
    plain = model.generate(prompt, reuse_cache=False, **options).complete()
    options["loop"] = loop
    drafted = model.generate(prompt, reuse_cache=False, **options, **chosen(model, spec)).complete()
    again = model.generate(prompt, **options, **chosen(model, spec)).complete()
    assert drafted.ids == plain.ids
    assert again.ids == plain.ids
    assert drafted.stats.exits_per_layer == plain.stats.exits_per_layer
    assert len(plain.ids) == 40


def test_exits_fire_and_a_threshold_above_one_is_plain(model: Model) -> None:
    prompt, options = [3, 1, 4, 1, 5], {"max_tokens": 60, "ignore_end": True}
    plain = model.generate(prompt, **options).complete()
    early = model.generate(prompt, exit="confidence:layers=0+1,threshold=0.2", **options).complete()
    never = model.generate(prompt, exit="confidence:layers=0+1,threshold=1.5", **options).complete()
    assert never.ids == plain.ids
    assert early.ids != plain.ids
    assert early.stats.exits_per_layer


def test_threads_and_pieces_change_nothing(tiny_bundle: Path) -> None:
    """90 tokens are eight pieces for a program of 12 rows."""
    found = []
    for threads in (1, 2, 3):
        with forerun.load(tiny_bundle, threads=threads) as model:
            assert model.threads == threads
            generation = model.generate(
                [index % 37 for index in range(90)], max_tokens=50, drafter="self:tokens=3"
            )
            found.append(generation.complete().ids)
    assert found[0] == found[1] == found[2]


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=37, max_size=37),
    temperature=st.one_of(st.just(0.0), st.floats(0.01, 5)),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
    seed=st.integers(0, MAX_SEED),
    position=st.integers(0, 2**31 - 1),
)
def test_native_sampling_is_the_definition(
    model: Model,
    logits: list[float],
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    position: int,
) -> None:
    values = np.array(logits, np.float32)
    native = model.session.sample(
        values, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, position=position
    )
    assert native == draw_token(values, Sampling(temperature, top_k, top_p, seed), position)


def test_a_full_context_ends_the_answer_and_keeps_it(tiny_bundle: Path) -> None:
    with forerun.load(tiny_bundle, context=32) as model:
        capacity = model.context_length
        for drafter in ("none", "lookup:min_ngram=1,branches=3", "self:tokens=5", "self:skip=a1,tokens=5"):
            generation = model.generate(
                [5, 6, 7], max_tokens=500, drafter=drafter, ignore_end=True
            ).complete()
            assert generation.finish_reason == "context_full"
            assert len(generation.ids) == capacity - 3 + 1
        with pytest.raises(ContextFullError, match="the context holds"):
            model.generate([1] * (capacity + 1))


def test_text_goes_through_the_bundles_tokenizer_and_template(model: Model) -> None:
    assert model.encode_prompt("hi") == model.language.tokenizer.encode("uhia")
    generation = model.generate("hi", max_tokens=30, ignore_end=True)
    assert "".join(generation) == generation.text == model.language.tokenizer.decode(generation.ids)
    ended = model.generate("hi", max_tokens=100, temperature=1.0, seed=2).complete()
    assert (ended.finish_reason == "stop") == (0 in ended.ids)


def test_answers_under_way_do_not_disturb_each_other(model: Model) -> None:
    options: dict[str, Any] = {"max_tokens": 40, "drafter": "self:layers=1,tokens=3", "ignore_end": True}
    alone = [model.generate([number] * 3, **options).complete().ids for number in (1, 2)]
    first, second = (model.generate([number] * 3, **options) for number in (1, 2))
    while [next(one, None) for one in (first, second)] != [None, None]:
        pass
    assert [first.ids, second.ids] == alone


def test_loading_mistakes_are_named(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        forerun.load(tmp_path / "missing")
    with pytest.raises(TargetError, match="moon"):
        forerun.load(tiny_bundle, target="moon")
    for options in ({"threads": 0}, {"sequences": 0}, {"context": -1}):
        with pytest.raises(OptionError, match=next(iter(options))):
            forerun.load(tiny_bundle, **options)
