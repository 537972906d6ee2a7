"""Speculation never changes a token: every drafter, shape, limit and setting against plain decoding."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import Answer, Oracle, RandomTrees, answer
from scripted import ScriptedConfig, ScriptedSession

from forerun.runtime.drafters import DRAFTERS
from forerun.runtime.exits.confidence import Confidence
from forerun.runtime.protocol import Drafter, ExitPolicy
from forerun.runtime.settings import Sampling, Settings
from forerun.runtime.specs import make_drafter

SPECS: tuple[tuple[str, str | None], ...] = (
    *((name, None) for name in DRAFTERS),
    ("lookup:min_ngram=1,max_ngram=2,tokens=7,branches=4", None),
    ("lookup:min_ngram=1,branches=3", "tree:branches=2+1+1"),
    ("lookup:min_ngram=1", "chain:tokens=2"),
    ("self:layers=1,tokens=6", None),
    ("self:layers=3,tokens=6,threshold=0.2", None),
    ("self:layers=2", "tree:branches=3+2+2+1"),
    ("self:skip=a1+f1+f2,tokens=5", None),
    ("self:skip=f0+a3,threshold=0.1", "tree:branches=2+2"),
    ("self:layers=2", "cape:tokens=4,siblings=3"),
    ("feature:tokens=6", None),
    ("feature", "grown:reach=0,beam=3,width=3,rows=20"),
    ("feature", "cape"),
    ("heads", "tree:branches=2+2+1"),
    ("heads", "grown:reach=0.01"),
    ("exit:threshold=0,tokens=5", None),
    ("exit:threshold=0", "cape:siblings=2"),
    ("exit:threshold=0", "tree:branches=3+2"),
    ("auto:network=exit", None),
    ("auto:network=heads", None),
    ("auto:network=none", None),
)

SAMPLINGS = st.one_of(
    st.just(Sampling()),
    st.builds(
        Sampling,
        temperature=st.floats(0.05, 4.0),
        top_k=st.integers(0, 12),
        top_p=st.floats(0.1, 1.0),
        seed=st.integers(0, 2**64 - 1),
    ),
)
PROMPTS = st.lists(st.integers(0, 10), min_size=1, max_size=12)


def drafters() -> st.SearchStrategy[Drafter]:
    random_trees = st.builds(RandomTrees, st.integers(0, 10**6), st.sampled_from([(), (0, 3)]))
    return st.one_of(random_trees, st.sampled_from(SPECS).map(lambda pair: make_drafter(*pair)))


def check_same(plain: Answer, drafted: Answer) -> None:
    assert drafted.ids == plain.ids
    assert drafted.text == plain.text
    assert drafted.reason == plain.reason
    assert drafted.cache == plain.cache


def check_counts(found: Answer) -> None:
    """The identities that `stats.py` states."""
    stats = found.stats
    assert stats.generated_tokens == len(found.ids) == 1 + stats.verify_calls + stats.accepted
    assert stats.drafted == sum(stats.drafted_per_position)
    if stats.origins:
        assert stats.drafted == sum(origin.drafted for origin in stats.origins.values())
        assert stats.accepted == sum(origin.accepted for origin in stats.origins.values())
    assert stats.accepted == sum(stats.accepted_per_position)
    assert len(stats.drafted_per_position) == len(stats.accepted_per_position)
    pairs = zip(stats.accepted_per_position, stats.drafted_per_position, strict=True)
    assert all(accepted <= drafted for accepted, drafted in pairs)
    if stats.verify_calls:
        assert stats.mean_accepted_length == pytest.approx((len(found.ids) - 1) / stats.verify_calls)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    drafter=drafters(),
    sampling=SAMPLINGS,
    prompt=PROMPTS,
    max_tokens=st.integers(1, 40),
    end=st.sets(st.integers(0, 10), max_size=2),
    stop=st.lists(st.text("abcdefghijk", min_size=1, max_size=3), max_size=2),
    capacity=st.integers(13, 60),
    seed=st.integers(0, 5),
    max_rows=st.sampled_from([1, 3, 64]),
    max_gather=st.sampled_from([2, 64]),
)
def test_every_drafter_gives_the_ids_of_plain_decoding(
    drafter: Drafter,
    sampling: Sampling,
    prompt: list[int],
    max_tokens: int,
    end: set[int],
    stop: list[str],
    capacity: int,
    seed: int,
    max_rows: int,
    max_gather: int,
) -> None:
    """End tokens, stop strings, the token limit and the end of the context all fall inside drafts here."""
    session = ScriptedSession(
        ScriptedConfig(max_rows=max_rows, max_gather=max_gather), capacity=capacity, seed=seed
    )
    settings = Settings(max_tokens, tuple(stop), frozenset(end), sampling)
    plain = answer(session, prompt, settings)
    drafted = answer(session, prompt, settings, drafter)
    check_same(plain, drafted)
    check_counts(plain)
    check_counts(drafted)


@hypothesis_settings(max_examples=80, deadline=None)
@given(
    drafter=drafters(),
    sampling=SAMPLINGS,
    prompt=PROMPTS,
    threshold=st.floats(0.0, 0.6),
    layers=st.sampled_from([(0,), (1,), (2,), (0, 2), (0, 1, 2)]),
    capacity=st.integers(13, 60),
)
def test_early_exits_do_not_depend_on_the_drafter(
    drafter: Drafter,
    sampling: Sampling,
    prompt: list[int],
    threshold: float,
    layers: tuple[int, ...],
    capacity: int,
) -> None:
    session = ScriptedSession(capacity=capacity)
    settings = Settings(30, sampling=sampling)
    exits: ExitPolicy = Confidence(layers, threshold)
    plain = answer(session, prompt, settings, exits=exits)
    drafted = answer(session, prompt, settings, drafter, exits)
    check_same(plain, drafted)
    check_counts(drafted)
    assert drafted.stats.exits_per_layer == plain.stats.exits_per_layer


@hypothesis_settings(max_examples=40, deadline=None)
@given(drafter=drafters(), sampling=SAMPLINGS, prompt=PROMPTS)
def test_a_threshold_above_one_is_plain_decoding(
    drafter: Drafter, sampling: Sampling, prompt: list[int]
) -> None:
    session = ScriptedSession()
    settings = Settings(25, sampling=sampling)
    plain = answer(session, prompt, settings)
    found = answer(session, prompt, settings, drafter, Confidence((0, 2), threshold=1.01))
    check_same(plain, found)
    assert found.stats.exits_per_layer == {}
    assert found.pending == 0


def test_exits_are_taken_and_change_the_output() -> None:
    """Guards the two tests above against a policy that never fires."""
    session = ScriptedSession()
    plain = answer(session, [1, 2, 3], Settings(40))
    early = answer(session, [1, 2, 3], Settings(40), exits=Confidence((0, 2), threshold=0.05))
    assert sum(early.stats.exits_per_layer.values()) == early.stats.verify_calls
    assert early.ids != plain.ids
    assert early.pending > 0


@pytest.mark.parametrize("tokens", [1, 3, 8])
def test_a_perfect_drafter_gets_everything_accepted(tokens: int) -> None:
    session = ScriptedSession()
    prompt = [1, 2, 3]
    plain = answer(session, prompt, Settings(41))
    found = answer(session, prompt, Settings(41), Oracle(plain.ids, tokens, len(prompt)))
    check_same(plain, found)
    assert found.stats.mean_accepted_length == pytest.approx(40 / found.stats.verify_calls)
    assert found.stats.verify_calls == -(-40 // (tokens + 1))


@pytest.mark.parametrize("spec", SPECS)
def test_drafters_do_draft(spec: tuple[str, str | None]) -> None:
    """Every drafter but `none` has accepted tokens on a model that repeats itself."""
    session = ScriptedSession(repeat=12.0)
    found = answer(session, [1, 2, 3, 1, 2, 3], Settings(120), make_drafter(*spec))
    assert (found.stats.accepted > 0) == (spec[0] != "none")


@hypothesis_settings(max_examples=40, deadline=None)
@given(prompt=PROMPTS, max_rows=st.integers(1, 13), sampling=SAMPLINGS)
def test_a_prompt_in_pieces_gives_the_same_ids(prompt: list[int], max_rows: int, sampling: Sampling) -> None:
    settings = Settings(10, sampling=sampling)
    whole = answer(ScriptedSession(), prompt, settings)
    pieces = answer(ScriptedSession(ScriptedConfig(max_rows=max_rows)), prompt, settings)
    check_same(whole, pieces)
