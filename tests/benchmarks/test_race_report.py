"""The race's figures: medians and ratios of samples, bars judged, a report written. No timing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.race.bars import KEEP, RATIOS, SYMMETRIC, judge_all
from benchmarks.race.interface import GEMMA
from benchmarks.race.report import report_lines, write_report
from benchmarks.race.results import EntrantInfo, Results, Sample, read_results, spread
from benchmarks.race.tasks import MODES, task_trials
from benchmarks.race.trials import BANDWIDTH, CONTEXT, MEMORY, QUALITY, START, TIMED

LLAMA, AMX = "llama.cpp Q4_1", "llama.cpp AMX Q4_1"
MACHINE = {
    "cpu": "Test CPU",
    "cpu_flags": ["avx2", "avx512_vnni"],
    "has_amx": False,
    "cores": 2,
    "memory_gib": 4,
    "kernel": "6.1",
    "python": "3.11",
    "load_average": 0.1,
    "date": "2026-01-02 03:04 UTC",
    "commit": "abc",
    "command": "make race",
}
OWN = {"weights_bytes": 100_000_000, "kv_bytes_per_position": 23_040}


def make_results(values: dict[tuple[str, str], list[float | None]], note: str = "") -> Results:
    """Results with these values per (test, entrant), one for each repetition; None gets the note."""
    entrants = [
        EntrantInfo(KEEP, "forerun", "Q4_1", OWN),
        EntrantInfo(SYMMETRIC, "forerun", "Q4_0", OWN),
        EntrantInfo(LLAMA, "llama.cpp", "Q4_1", {}),
        EntrantInfo(AMX, "llama.cpp", "Q4_1", {}),
    ]
    units = {trial.name: trial.unit for trial in TIMED}
    samples = [
        Sample(test, entrant, index, value, units.get(test, "ms"), note if value is None else "")
        for (test, entrant), found in values.items()
        for index, value in enumerate(found)
    ]
    return Results(dict(MACHINE), entrants, samples)


def outcome(results: Results, what: str) -> tuple[str, bool | None]:
    """What was measured for the one bar whose text holds `what`, and whether it is met."""
    (found,) = [one for one in judge_all(results) if what in one.what]
    return found.measured, found.met


def test_a_ratio_is_taken_within_each_repetition() -> None:
    """A slow spell in one repetition falls on both sides; the ratio of medians would be 3."""
    results = make_results({("tg64", KEEP): [300.0, 100.0, 400.0], ("tg64", LLAMA): [100.0, 50.0, 200.0]})
    assert results.ratio(("tg64", KEEP), ("tg64", LLAMA)) == 2.0
    assert results.median("tg64", KEEP) == 300.0
    assert results.repetitions == 3


def test_a_ratio_leaves_out_repetitions_that_one_side_lacks() -> None:
    results = make_results(
        {("tg64", KEEP): [300.0, 100.0], ("tg64", LLAMA): [None, 50.0]}, "crashed (SIGILL)"
    )
    assert results.ratio(("tg64", KEEP), ("tg64", LLAMA)) == 2.0
    assert results.ratio(("tg64", KEEP), ("tg64", AMX)) is None


def test_the_faster_working_build_is_the_one_to_beat() -> None:
    faster = make_results({("tg64", KEEP): [300.0], ("tg64", LLAMA): [100.0], ("tg64", AMX): [290.0]})
    assert outcome(faster, "faster llama.cpp build") == (f"1.03× (against {AMX})", False)
    crashed = make_results(
        {("tg64", KEEP): [300.0], ("tg64", LLAMA): [100.0], ("tg64", AMX): [None]}, "crashed (SIGILL)"
    )
    assert outcome(crashed, "faster llama.cpp build") == (f"3.00× (against {LLAMA})", True)


def test_times_are_compared_the_other_way_round() -> None:
    test = "rows 4"
    results = make_results(
        {(test, KEEP): [2.0], (test, LLAMA): [8.0], (test, AMX): [6.0], ("rows 1", KEEP): [1.0]}
    )
    assert outcome(results, "call of 4 rows against") == (f"3.00× (against {AMX})", True)
    assert outcome(results, "T(4)/T(1)") == ("2.00×", False)


def test_prompts_are_held_against_the_build_without_amx() -> None:
    results = make_results({("pp128", KEEP): [900.0], ("pp128", LLAMA): [100.0], ("pp128", AMX): [9000.0]})
    assert outcome(results, "prompt of 128") == (f"9.00× (against {LLAMA})", True)


@pytest.mark.parametrize(
    ("mine", "theirs", "met"), [(0.001, 0.002, True), (0.002, 0.001, False), (0.004, 0.1, False)]
)
def test_quality_has_to_pass_both_bars(mine: float, theirs: float, met: bool) -> None:
    results = make_results({(QUALITY, KEEP): [mine], (QUALITY, LLAMA): [theirs]})
    assert outcome(results, "mean KL")[1] is met


def test_memory_is_held_against_weights_and_cache() -> None:
    allowed = 100 + CONTEXT * 23_040 / 1e6 + 40
    assert outcome(make_results({(MEMORY, KEEP): [allowed - 1]}), "peak memory")[1] is True
    assert outcome(make_results({(MEMORY, KEEP): [allowed + 1]}), "peak memory")[1] is False
    assert outcome(make_results({(START, KEEP): [31.0]}), "load of a bundle") == ("31.0 ms", False)


def test_growth_is_time_over_bytes_read_at_the_bandwidth() -> None:
    """40 GB/s and 100 MB + 128 positions of 23,040 bytes: at most 388 tokens/s."""
    fast = make_results({(BANDWIDTH, KEEP): [40.0], ("context 128", KEEP): [388.5]})
    assert outcome(fast, "cost growth") == ("1.00× at 128; model size: see GROWTH.md", None)
    slow = make_results({(BANDWIDTH, KEEP): [40.0], ("context 128", KEEP): [300.0]})
    assert outcome(slow, "cost growth")[1] is False


def test_tasks_are_held_against_the_fastest_way_of_llama() -> None:
    """Its AMX build is faster plain, its other build drafted by 2; each task counts alike."""
    speeds = {
        ("chat, plain", KEEP): 300.0,
        ("chat, drafted", KEEP): 400.0,
        ("rag, plain", KEEP): 290.0,
        ("rag, drafted", KEEP): 600.0,
        ("chat, plain", AMX): 210.0,
        ("rag, plain", AMX): 200.0,
        ("chat, drafted by 2", LLAMA): 200.0,
        ("rag, drafted by 2", LLAMA): 400.0,
    }
    results = make_results({key: [value] for key, value in speeds.items()})
    measured, met = outcome(results, "answers to prompts")
    assert measured == f"1.75× (against {LLAMA}, drafted by 2; least 1.50× in rag)"
    assert met is True
    lines = report_lines(results, "picture.png")
    assert f"| {KEEP} | 400.00 | 600.00 |" in lines
    del speeds["rag, drafted", KEEP]
    results = make_results({key: [value] for key, value in speeds.items()})
    assert outcome(results, "answers to prompts") == ("not measured", None)


def test_tasks_are_made_of_a_prompts_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    given = [("writing", "a"), ("writing", "b"), ("rag", "c"), ("coding", "d")]
    lines = [json.dumps({"category": category, "turns": [text]}) for category, text in given]
    path.write_text("\n".join(lines))
    trials = {trial.name: trial for trial in task_trials(path, first=1)}
    assert list(trials) == [f"{task}, {mode}" for task in ("chat", "rag") for mode in MODES]
    assert len(trials["chat, plain"].arguments["prompts"]) == 2
    assert trials["rag, plain"].arguments["drafted"] == 0 < trials["rag, drafted"].arguments["drafted"]
    assert len(task_trials(path, first=None)[0].arguments["prompts"]) == 3


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    outcomes = judge_all(make_results({}))
    assert len(outcomes) == len(RATIOS) + 5
    assert all(one.met is None and one.measured.startswith("not measured") for one in outcomes)


def test_every_bar_names_a_test_of_the_race() -> None:
    """With every test measured, no ratio against llama.cpp or ourselves may be without a figure."""
    names = [trial.name for trial in TIMED]
    results = make_results(
        {(name, entrant): [1.0] for name in names for entrant in (KEEP, SYMMETRIC, LLAMA, AMX)}
    )
    results.entrants += [EntrantInfo("l0", "llama.cpp", "Q4_0", {})]
    results.samples += [Sample("tg64", "l0", 0, 1.0, "tokens/s")]
    results.entrants += [EntrantInfo("g", "llama.cpp", GEMMA, {})]
    results.samples += [Sample("tg64", name, 0, 1.0, "tokens/s") for name in ("g", f"forerun {GEMMA}")]
    for peer in ("onnxruntime-genai", "openvino-genai", "transformers"):
        results.entrants.append(EntrantInfo(peer, peer, "x", {}))
        results.samples.append(Sample("tg64", peer, 0, 1.0, "tokens/s"))
    assert all(ratio.judge(results).met is not None for ratio in RATIOS)


def test_results_survive_their_file(tmp_path: Path) -> None:
    results = make_results({("tg64", KEEP): [300.0, None]}, "crashed (SIGILL)")
    results.write(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results
    (tmp_path / "old.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="format"):
        read_results(tmp_path / "old.json")


def test_the_report_shows_figures_crashes_and_the_machine(tmp_path: Path) -> None:
    values: dict[tuple[str, str], list[float | None]] = {
        ("tg64", KEEP): [300.0, 320.0, 340.0],
        ("pp128", AMX): [None, None],
        ("rows 4", KEEP): [2.5],
    }
    results = make_results(values, "crashed (SIGILL)")
    write_report(results, tmp_path / "RESULTS.md", "results.png")
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert f"| {KEEP} | 320 ± 20 | – |" in text
    assert f"| {AMX} | crashed | – |" in text
    assert f"- {AMX}, pp128: crashed (SIGILL)" in text
    assert "This CPU has no AMX" in text and "Test CPU" in text and "`make race`" in text
    assert "not idle" not in text


def test_the_report_says_when_the_machine_was_busy() -> None:
    results = make_results({})
    results.samples.append(Sample("tg64", KEEP, 0, 1.0, "tokens/s", others=0.4))
    assert any("not idle" in line for line in report_lines(results, "results.png"))


def test_spread_is_half_the_range() -> None:
    assert spread([3.0, 5.0, 9.0]) == 3.0
