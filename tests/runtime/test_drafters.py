"""Each drafter by itself: what it proposes, what it leaves staged, which options it refuses."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import answer
from scripted import ScriptedSession

from forerun.errors import OptionError
from forerun.registry import options_of
from forerun.runtime.drafters import DRAFTERS
from forerun.runtime.drafters.self import parse_skip_set
from forerun.runtime.exits import EXITS
from forerun.runtime.protocol import Draft, DraftContext
from forerun.runtime.settings import Sampling, Settings
from forerun.runtime.specs import make_drafter
from forerun.runtime.tree import merge_chains


def propose(
    spec: str,
    token_ids: Sequence[int],
    *,
    shape: str | None = None,
    row_limit: int = 64,
    depth_limit: int = 50,
    reusable: int = 8,
    session: ScriptedSession | None = None,
) -> Draft:
    """One proposal in a session whose cache holds all of `token_ids` but the last."""
    session = session or ScriptedSession()
    sequence = session.create_sequence()
    staged = session.stage(sequence, token_ids[:-1])
    if staged:
        session.forward([(sequence, row) for row in staged])
        session.commit(sequence, staged)
    drafter = make_drafter(spec, shape)
    drafter.begin(session, 0, token_ids)
    return drafter.propose(
        DraftContext(session, sequence, token_ids, row_limit, depth_limit, reusable, Sampling())
    )


def test_lookup_copies_what_followed_the_longest_match() -> None:
    # 7 8 came twice; only one of them after 6.
    draft = propose("lookup:max_ngram=3,min_ngram=1,tokens=2", [6, 7, 8, 1, 2, 5, 7, 8, 3, 4, 6, 7, 8])
    assert draft.tree.token_ids == (8, 1, 2)


def test_lookup_prefers_the_most_recent_match_and_branches() -> None:
    text = [7, 8, 1, 2, 0, 7, 8, 1, 3, 0, 7, 8]
    assert propose("lookup:min_ngram=2,tokens=2", text).tree == merge_chains(8, [(1, 3)])
    assert propose("lookup:min_ngram=2,tokens=2,branches=2", text).tree == merge_chains(8, [(1, 3), (1, 2)])
    assert propose("lookup:min_ngram=2,tokens=2,branches=2", text, shape="chain").tree == merge_chains(
        8, [(1, 3)]
    )
    both = propose("lookup:min_ngram=2,tokens=2,branches=2", text, shape="tree:branches=1+2").tree
    assert both == merge_chains(8, [(1, 3), (1, 2)])


def test_lookup_goes_on_with_its_own_copy() -> None:
    assert propose("lookup:min_ngram=2,tokens=6", [1, 2, 3, 1, 2]).tree.token_ids == (2, 3, 1, 2, 3, 1, 2)


def test_lookup_without_a_match_proposes_nothing() -> None:
    assert len(propose("lookup", [1, 2, 3, 4]).tree) == 1
    assert len(propose("lookup", [1]).tree) == 1


@hypothesis_settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.integers(1, 3), more=st.integers(0, 3), tokens=st.integers(1, 5))
def test_the_incremental_index_equals_a_search(seed: int, low: int, more: int, tokens: int) -> None:
    """Reference: scan the whole text for the longest n-gram, last occurrence first."""
    rng = random.Random(seed)
    text = [rng.randrange(3) for _ in range(rng.randint(1, 6))]
    drafter = make_drafter(f"lookup:min_ngram={low},max_ngram={low + more},tokens={tokens}", None)
    session = ScriptedSession()
    drafter.begin(session, 0, text)
    for _ in range(12):
        found = drafter.propose(DraftContext(session, 0, text, 64, 50, 8, Sampling())).tree.token_ids[1:]
        assert found == search(text, low, low + more, tokens)
        text += [rng.randrange(3) for _ in range(rng.randint(1, 3))]


def search(text: list[int], low: int, high: int, tokens: int) -> tuple[int, ...]:
    """What lookup should propose; without a match nothing."""
    sizes = range(min(high, len(text) - 1), low - 1, -1)
    matches = (
        end
        for size in sizes
        for end in range(len(text) - 1, size - 1, -1)
        if text[end - size : end] == text[-size:]
    )
    end = next(matches, None)
    longer = list(text)
    for _ in range(tokens if end is not None else 0):
        longer.append(longer[len(longer) - (len(text) - end)])
    return tuple(longer[len(text) :])


def test_self_drafting_leaves_its_rows_for_the_verify_call() -> None:
    session = ScriptedSession()
    draft = propose("self:layers=2,tokens=3", [1, 2, 3], session=session)
    assert len(draft.tree) == 4
    assert draft.done == (4, 4, 4)
    assert session.staged(0) == 3


@pytest.mark.parametrize(
    ("spec", "reusable"), [("self:skip=a1+f2,tokens=3", 8), ("self:layers=3,tokens=3", 4)]
)
def test_rows_that_cannot_be_continued_are_dropped(spec: str, reusable: int) -> None:
    """Skipped sublayers make rows inexact; an exit policy has to see rows at its own layer."""
    session = ScriptedSession()
    draft = propose(spec, [1, 2, 3], session=session, reusable=reusable)
    assert draft.done == ()
    assert session.staged(0) == 0


def test_self_drafting_runs_only_the_sublayers_it_was_given() -> None:
    session = ScriptedSession()
    propose("self:skip=a1+f2,tokens=1", [1, 2], session=session)
    assert session.calls[-1].sublayers == (0, 1, 3, 4, 6, 7)
    propose("self:layers=1,tokens=1", [1, 2], session=session)
    assert session.calls[-1].sublayers == (0, 1)


def test_verification_continues_from_the_drafted_layers() -> None:
    """All drafted rows but the last level enter the verify call with 2E sublayers passed."""
    session = ScriptedSession(repeat=9.0)
    found = answer(session, [1, 2, 3], Settings(20), make_drafter("self:layers=3,tokens=3", None))
    verifies = [call for call in session.calls[1:] if len(call.sublayers) == 8]
    assert found.stats.verify_calls == len(verifies) < 19
    assert verifies[0].done == (0, 6, 6, 6)
    assert sum(call.done.count(6) for call in verifies) == found.stats.drafted


def test_nothing_is_drafted_beyond_the_token_limit() -> None:
    """The last token needs no draft: with two tokens to come one may be drafted, with one none."""
    session = ScriptedSession()
    for max_tokens in (2, 3):
        found = answer(session, [1, 2, 3], Settings(max_tokens), make_drafter("self:layers=3,tokens=9", None))
        assert len(found.stats.drafted_per_position) == max_tokens - 2


def test_a_threshold_stops_unsure_drafts() -> None:
    assert len(propose("self:layers=2,threshold=1.0", [1, 2, 3]).tree) == 1
    lengths = [len(propose(f"self:layers=2,tokens=8,threshold={t}", [1, 2, 3]).tree) for t in (0.0, 0.1, 0.9)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 9


@pytest.mark.parametrize("name", [*DRAFTERS])
def test_drafters_keep_to_the_limits(name: str) -> None:
    text = [1, 2, 3, 1, 2, 3, 1, 2]
    for rows, depth in ((1, 9), (3, 9), (9, 1), (9, 0)):
        tree = propose(name, text, row_limit=rows, depth_limit=depth).tree
        assert len(tree) <= rows
        assert max(tree.depths) <= depth


@pytest.mark.parametrize(
    "spec",
    [
        "lokup",
        "lookup:ngram=3",
        "lookup:tokens=x",
        "lookup:tokens=0",
        "lookup:branches=0",
        "lookup:min_ngram=4,max_ngram=3",
        "self:layers=2,skip=a1",
        "self:skip=b1",
        "self:skip=a",
        "self:skip=a1+",
        "self:skip=a²",
        "self:threshold=nan",
        "self:tokens=0",
        "none:tokens=1",
    ],
)
def test_impossible_options_are_refused(spec: str) -> None:
    if spec == "self:skip=a1+":
        assert parse_skip_set("a1+") == {("attention", 1)}
        return
    with pytest.raises(OptionError):
        make_drafter(spec, None)


@pytest.mark.parametrize("spec", ["self:layers=0", "self:layers=4", "self:skip=a4", "self:skip=f99"])
def test_layers_the_model_has_not_are_refused(spec: str) -> None:
    with pytest.raises(OptionError, match="4 layers"):
        make_drafter(spec, None).begin(ScriptedSession(), 0, [1])


@pytest.mark.parametrize("spec", ["confidence:layers=3", "confidence:layers=1+0", "confidence:layers=-1"])
def test_exit_layers_the_model_has_not_are_refused(spec: str) -> None:
    with pytest.raises(OptionError, match="4 layers"):
        EXITS.create(spec).points(4)


def test_a_shape_for_a_drafter_without_one_is_refused() -> None:
    with pytest.raises(OptionError, match="no shape"):
        make_drafter("none", "chain")


@pytest.mark.parametrize("registry", [DRAFTERS, EXITS])
def test_every_entry_describes_itself(registry: dict[str, type]) -> None:
    """`forerun list` shows these; an entry must also work without options."""
    for name, entry in registry.items():
        assert entry.name == name  # type: ignore[attr-defined]
        assert entry.summary  # type: ignore[attr-defined]
        assert not any(option.required for option in options_of(entry))
        registry.create(name)  # type: ignore[attr-defined]
