"""The planner: costs that are measured and kept, chances that are learned, and drafts only where they pay."""

import itertools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import answer
from scripted import ScriptedConfig, ScriptedResult, ScriptedSession
from tiny_bundle import make_tiny_bundle

import forerun
from forerun.runtime.costs import KeptCosts, LiveCosts, RowCosts, measure_rows
from forerun.runtime.drafters.auto import Auto
from forerun.runtime.planner import Frequency, NetworkPlan, Pace, PlannedShape, Planner
from forerun.runtime.protocol import Candidate
from forerun.runtime.settings import Settings

COSTS = RowCosts((1, 2, 4, 8), (2.0, 2.0, 3.0, 6.0))


def test_costs_between_and_beyond_what_was_measured() -> None:
    costs = LiveCosts(COSTS)
    assert [costs.relative(rows) for rows in (1, 2, 3, 4, 6, 8, 10)] == [1, 1, 1.25, 1.5, 2.25, 3, 3.75]
    assert costs.marginal(1) == 0 and costs.marginal(4) == pytest.approx(0.375)


def test_more_rows_never_cost_less() -> None:
    costs = LiveCosts(RowCosts((1, 2, 4, 8, 16), (2.0, 2.0, 2.0, 1.0, 2.5)))
    for _ in range(200):
        costs.note(1, 3.0)
        costs.note(4, 1.5)
        costs.note(2, 4.0)
    assert costs.relative(1) == 1
    assert all(costs.marginal(rows) >= 0 for rows in range(1, 30))


@given(slow=st.floats(0.5, 2.0), dear=st.floats(1.0, 1.9))
def test_costs_follow_the_machine(slow: float, dear: float) -> None:
    """Everything `slow` times as long, eight rows `dear` times more than that."""
    costs = LiveCosts(RowCosts((1, 8), (2.0, 3.0)))
    for _ in range(400):
        costs.note(1, 2.0 * slow)
        costs.note(8, 3.0 * slow * dear)
    assert costs.plain_ms == pytest.approx(2.0 * slow, rel=0.05)
    assert costs.relative(8) == pytest.approx(1.5 * dear, rel=0.05)


class TimedSession(ScriptedSession):
    """Calls take a fixed time, and one a row."""

    call_ms = 0.0
    row_ms = 2.0

    def forward(self, rows: Sequence[tuple[int, int]], **options: object) -> ScriptedResult:
        result = super().forward(rows, **options)  # type: ignore[arg-type]
        time.sleep(0.001 * (self.call_ms + self.row_ms * len(rows)))
        return result


def test_measuring_leaves_the_sequence_as_it_was() -> None:
    session = TimedSession(ScriptedConfig(max_rows=6), capacity=20)
    session.call_ms = 4
    sequence = session.create_sequence()
    staged = session.stage(sequence, [1, 2, 3])
    session.forward([(sequence, row) for row in staged])
    session.commit(sequence, staged)
    costs = measure_rows(session, sequence, 4)
    assert costs.rows == (1, 2, 3, 4, 6)
    assert costs.ms[-1] > 2 * costs.ms[0]
    assert costs.is_whole
    assert session.tokens(sequence) == (1, 2, 3) and session.staged(sequence) == 0


def test_rows_that_are_dear_are_not_measured_on() -> None:
    """Where every row costs as much as the first, four are enough to see it, or a few more on a busy machine."""
    session = TimedSession(ScriptedConfig(max_rows=40), capacity=60)
    session.row_ms = 6
    costs = measure_rows(session, session.create_sequence(), 4)
    assert 4 <= costs.rows[-1] < 16 and costs.is_whole
    assert LiveCosts(costs).relative(16) == pytest.approx(16, rel=0.3)


def test_the_core_does_not_measure_on_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = make_tiny_bundle(tmp_path, "-DTINY_ROW_US=10000")
    with forerun.load(bundle, threads=2) as model:
        model.generate([1, 2], max_tokens=4, drafter="auto", loop="native", ignore_end=True).complete()
    costs = KeptCosts.of(bundle, 2).load()
    assert costs is not None and 4 <= costs.rows[-1] < 12  # which the program could take


def test_costs_measured_at_the_end_of_the_context_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say nothing of many rows, for which there was no room."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "manifest.json").write_text("{}")
    session = TimedSession(ScriptedConfig(max_rows=6), capacity=7)
    sequence = session.create_sequence()
    staged = session.stage(sequence, [1, 2, 3])
    session.forward([(sequence, row) for row in staged])
    session.commit(sequence, staged)
    planner = Planner(lambda: KeptCosts.of(tmp_path, 2))
    planner.costs_of(session, sequence, 4)
    assert KeptCosts.of(tmp_path, 2).load() is None


def test_costs_are_kept_for_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "manifest.json").write_text("{}")
    kept = KeptCosts.of(tmp_path, 2)
    assert kept.load() is None
    kept.save(COSTS)
    assert KeptCosts.of(tmp_path, 2).load() == COSTS
    assert KeptCosts.of(tmp_path, 1).load() is None
    (tmp_path / "manifest.json").write_text('{"compiled": "again"}')
    assert KeptCosts.of(tmp_path, 2).load() is None
    for damage in (
        "{",
        "[]",
        json.dumps({"format": "forerun-costs", "version": 1, "rows": [2, 1], "ms": [1, 1]}),
    ):
        kept.path.write_text(damage)
        assert kept.load() is None
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    KeptCosts.of(tmp_path, 2).save(COSTS)  # nowhere to keep them: no error


@given(rate=st.floats(0.05, 0.95))
def test_frequencies_are_learned_and_forgotten(rate: float) -> None:
    frequency = Frequency(0.5)
    assert frequency.value == 0.5
    hits = 0.0
    for _ in range(400):
        hits += rate
        frequency.note(hits >= 1)
        hits -= hits >= 1
    assert frequency.value == pytest.approx(rate, abs=0.06)
    for _ in range(400):
        frequency.note(True)
    assert frequency.value > 0.95


def test_pace_is_never_below_plain_decoding() -> None:
    pace = Pace()
    assert pace.rate == 1
    for _ in range(50):
        pace.note(1, 2.0)
    assert pace.rate == 1
    for _ in range(500):
        pace.note(3, 1.5)
    assert pace.rate == pytest.approx(2.0, rel=0.01)


def plan_with(chance: float, first: float = 0.1, level: float = 0.1) -> NetworkPlan:
    """A network whose drafts are right with this chance, whatever it says itself."""
    plan = NetworkPlan()
    plan.first_cost, plan.level_cost = first, level
    for depth in range(1, 9):
        plan.at_depth(depth).hits, plan.at_depth(depth).tries = 1e6 * chance, 1e6
    for tenth in range(10):
        for rank in (0, 1):
            cell = plan.cell((tenth + 0.5) / 10, rank)
            cell.hits, cell.tries = 1e6 * chance, 1e6
    return plan


@given(
    chance=st.floats(0.0, 0.99),
    rate=st.floats(1.0, 4.0),
    first=st.floats(0.0, 0.5),
    level=st.floats(0.0, 0.5),
)
def test_expected_gains_are_those_of_all_lengths_tried(
    chance: float, rate: float, first: float, level: float
) -> None:
    costs, plan = LiveCosts(COSTS), plan_with(chance, first, level)
    gains = []
    for length in range(1, 9):
        tokens = sum(chance**depth for depth in range(1, length + 1))
        took = first + (length - 1) * level + costs.relative(1 + length) - 1
        gains.append(tokens - rate * took)
    expected = max(-rate * first, *gains)
    assert plan.expected_gain(costs, rate, 1.0, 1) == pytest.approx(expected, abs=1e-4)


def test_a_network_that_does_not_pay_is_tried_ever_more_rarely() -> None:
    """Some calls at a time; the next text starts anew."""
    plan = NetworkPlan()
    for _ in range(2):
        plan.begin()
        due = [call for call in range(3000) if plan.is_due(-1.0)]
        assert due[:4] == [0, 1, 2, 3]
        pauses = [later - earlier for earlier, later in itertools.pairwise(due[::4])]
        assert pauses[:4] == [36, 68, 132, 260] and set(pauses[4:]) == {260}
    plan = NetworkPlan()
    assert all(plan.is_due(-1.0) for _ in range(4)) and not plan.is_due(-1.0)
    assert plan.is_due(0.1) and not plan.is_due(-1.0)


def test_what_drafts_have_brought_counts_more_than_what_a_chain_should_bring() -> None:
    plan, costs = NetworkPlan(), LiveCosts(COSTS)
    hoped = plan.expected_gain(costs, 1.0, 1.0, 1)
    for _ in range(100):
        plan.note_gain(costs, 1.0, levels=2, rows=4, accepted=0)
    spent = plan.first_cost + plan.level_cost + costs.relative(4) - 1
    assert plan.expected_gain(costs, 1.0, 1.0, 1) == pytest.approx(-spent, rel=0.2)
    assert plan.expected_gain(costs, 1.0, 0.999, 1) == pytest.approx(hoped, rel=0.1)


def test_a_planned_tree_stops_where_rows_cost_more_than_they_bring() -> None:
    costs = LiveCosts(RowCosts((1, 2, 16), (1.0, 1.1, 2.5)))  # every row costs 0.1
    shape = PlannedShape(costs, plan_with(0.5, level=0.03), 1.0)
    offered = [Candidate(0, token, token, 0.4) for token in range(3)]
    chosen, expanded = shape.select(1, offered, [1.0])
    assert len(chosen) == 3 and expanded == 3
    deeper = [Candidate(1, 7, 0, 0.4), Candidate(2, 7, 0, 0.4)]
    chosen, expanded = shape.select(2, deeper, [1.0] * 4)
    assert len(chosen) == 2 and expanded == 2  # 0.25 each, children 0.125
    chosen, expanded = shape.select(3, [Candidate(4, 9, 0, 0.4)], [1.0] * 6)
    assert len(chosen) == 1 and expanded == 0  # 0.125 pays, 0.0625 does not
    assert set(shape.counted) == {(0,), (1,), (2,), (0, 7), (1, 7), (0, 7, 9)}
    dear = PlannedShape(costs, plan_with(0.5), 6.0)
    assert dear.select(1, offered, [1.0]) == ([], 0)


def test_useless_drafts_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is never right is hardly drafted with once that is known."""
    session = ScriptedSession(seed=3, capacity=2000, repeat=0.0)
    planner = session.drafts.planner
    planner._costs = LiveCosts(RowCosts((1, 64), (1.0, 20.0)))
    monkeypatch.setattr(LiveCosts, "note", lambda self, rows, ms: None)
    monkeypatch.setattr(NetworkPlan, "note_time", lambda self, time, levels: None)
    drafted = answer(session, [1, 2, 3], Settings(max_tokens=400), Auto(network="feature"))
    plain = answer(session, [1, 2, 3], Settings(max_tokens=400))
    assert drafted.ids == plain.ids
    second = answer(session, [1, 2, 3], Settings(max_tokens=400), Auto(network="feature"))
    rate = drafted.stats.accepted / max(drafted.stats.drafted, 1)
    assert rate < 0.3
    assert second.stats.drafted < 0.5 * 400


def test_good_drafts_go_on() -> None:
    """The scripted network knows what the last two tokens say of the next, which is most of it here."""
    session = ScriptedSession(seed=1, capacity=2000, repeat=50.0)
    session.drafts.planner._costs = LiveCosts(RowCosts((1, 64), (1000.0, 1001.0)))
    drafted = answer(session, [1, 2, 3], Settings(max_tokens=300), Auto(network="none"))
    assert drafted.stats.mean_accepted_length > 2


@hypothesis_settings(max_examples=30, deadline=None)
@given(beside=st.integers(0, 40), rate=st.floats(1, 5))
def test_beside_others_a_row_pays_less(beside: int, rate: float) -> None:
    """With many answers in a call, rows are no longer nearly free."""
    costs = LiveCosts(RowCosts((1, 4, 64), (1.0, 1.0, 31.0)))
    alone = PlannedShape(costs, plan_with(0.5), rate)
    shared = PlannedShape(costs, plan_with(0.5), rate, rows_before=1 + beside)
    offered = [Candidate(0, token, token, 0.4) for token in range(3)]
    assert len(shared.select(1, offered, [1.0])[0]) <= len(alone.select(1, offered, [1.0])[0])


def test_planners_ask_for_costs_once() -> None:
    session = ScriptedSession()
    sequence = session.create_sequence()
    planner = Planner()
    first = planner.costs_of(session, sequence, 1)
    calls = len(session.calls)
    assert planner.costs_of(session, sequence, 1) is first and len(session.calls) == calls
