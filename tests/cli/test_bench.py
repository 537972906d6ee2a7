"""`forerun bench`: rows, tables, prompt files."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Forerun, check_error

from forerun.cli import prompts


def bench_rows(forerun: Forerun, bundle: str, *options: str) -> list[dict[str, object]]:
    done = forerun("bench", bundle, "--json", "--repetitions", "2", *options)
    assert done.code == 0, done.err
    rows: list[dict[str, object]] = json.loads(done.out)
    return rows


def write_prompts(path: Path) -> Path:
    lines = [
        {"turns": ["Hi", "More"], "category": "chat", "id": "one"},
        {"turns": ["abc abc abc"], "category": "copy"},
        {"turns": ["No category"]},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    return path


def test_bench_gives_a_row_for_every_test(forerun: Forerun, bundle: str, tmp_path: Path) -> None:
    prompts_file = write_prompts(tmp_path / "prompts.jsonl")
    rows = bench_rows(
        forerun, bundle, "--prompts", str(prompts_file), "--pp", "32", "--tg", "8", "--rows", "1,4",
        "--drafter", "lookup", "--drafter", "self:layers=3",
    )  # fmt: skip
    overall = [row["test"] for row in rows if row["category"] is None]
    assert overall == ["pp32", "tg8", "rows1", "rows4", "spec:none", "spec:lookup", "spec:self:layers=3"]
    assert [row["category"] for row in rows if row["test"] == "spec:lookup"] == [None, "chat", "copy"]
    for row in rows:
        assert float(str(row["tokens_per_s"])) > 0
        assert float(str(row["tokens_per_s_std"])) >= 0
        assert int(str(row["peak_rss_bytes"])) > 2**20
    by_name = {str(row["test"]): row for row in rows if row["category"] is None}
    assert float(str(by_name["rows4"]["ms"])) > 0
    assert by_name["pp32"]["ms"] is None
    assert by_name["spec:none"]["speedup"] == 1.0
    drafted = by_name["spec:self:layers=3"]
    assert drafted["same_ids"] is True
    assert float(str(drafted["mean_accepted_length"])) > 1
    assert 0 < float(str(drafted["acceptance_rate"])) <= 1
    assert float(str(drafted["draft_ms"])) > 0
    assert float(str(drafted["verify_ms"])) > 0


def test_bench_leaves_tests_out(forerun: Forerun, bundle: str) -> None:
    only_rows = bench_rows(forerun, bundle, "--pp", "0", "--tg", "0", "--rows", "2")
    assert [row["test"] for row in only_rows] == ["rows2"]
    assert [row["test"] for row in bench_rows(forerun, bundle, "--pp", "9", "--tg", "0", "--rows", "0")] == [
        "pp9"
    ]
    assert bench_rows(forerun, bundle, "--pp", "0", "--tg", "0", "--rows", "0") == []


def test_bench_prints_a_table(forerun: Forerun, bundle: str) -> None:
    done = forerun(
        "bench", bundle, "--pp", "8", "--tg", "4", "--rows", "2", "--repetitions", "1", "--drafter", "lookup"
    )
    for word in ("pp8", "tg4", "rows2", "spec:none", "spec:lookup", "speed-up", "category: code", "1.00x"):
        assert word in done.out
    check_error(forerun("bench", bundle, "--rows", "65"), "at most 64")


def test_rows_tests_carry_the_rows_they_say(bundle: str) -> None:
    from forerun.cli.measure import ROWS_CALLS, time_rows
    from forerun.runtime import model as runtime_model

    with runtime_model.load(Path(bundle), target=None, threads=None, context=None) as model:
        assert time_rows(model, 16) > 0
        calls = [call.rows for call in model.session.calls]  # type: ignore[attr-defined]
    assert calls == [64, 64, *[16] * ROWS_CALLS]


def test_bench_times_sequences_together(forerun: Forerun, bundle: str) -> None:
    options = ("--pp", "0", "--tg", "8", "--rows", "0", "--drafter", "lookup")
    rows = bench_rows(forerun, bundle, *options, "--sequences", "4,1,3")
    overall = [row for row in rows if row["category"] is None]
    assert [row["test"] for row in overall] == ["tg8", "seq4", "seq1", "seq3", "spec:none", "spec:lookup"]
    by_name = {str(row["test"]): row for row in overall}
    assert by_name["seq1"]["speedup"] == 1.0
    assert by_name["tg8"]["speedup"] is None
    for name, count in (("seq4", 4), ("seq1", 1), ("seq3", 3)):
        row = by_name[name]
        assert float(str(row["speedup"])) > 0
        # Milliseconds are those of a call, in which every sequence gets a token.
        assert float(str(row["ms"])) >= 0.99 * 1000 * count / float(str(row["tokens_per_s"]))
    alone = bench_rows(forerun, bundle, "--pp", "0", "--tg", "0", "--rows", "0", "--sequences", "2")
    assert [(row["test"], row["speedup"]) for row in alone] == [("seq2", None)]
    check_error(forerun("bench", bundle, "--sequences", "1,x"), "--sequences", "whole numbers")
    check_error(forerun("bench", bundle, "--sequences", "1,-4"), "--sequences", "1 or more")


def test_sequences_tests_decode_in_shared_calls(bundle: str) -> None:
    from forerun.cli.measure import time_together
    from forerun.runtime import model as runtime_model

    with runtime_model.load(Path(bundle), target=None, threads=None, context=None, sequences=3) as model:
        assert time_together(model, 3, 5) > 0
        calls = [call.rows for call in model.session.calls]  # type: ignore[attr-defined]
    assert calls == [3] * 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"turns": ["caf\xe9"]}', "not UTF-8"),
        (b"{", "not JSON"),
        (b'["x"]', "turns"),
        (b'{"turns": []}', "turns"),
        (b'{"turns": "Hi"}', "turns"),
        (b'{"turns": [""]}', "turns"),
        (b'{"turns": ["Hi"], "category": 3}', "category"),
    ],
)
def test_malformed_prompt_files_name_the_line(
    forerun: Forerun, tmp_path: Path, line: bytes, words: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"turns": ["fine"]}\n\n' + line + b"\n")
    check_error(forerun("bench", "x", "--prompts", str(path)), "line 3", words)


def test_an_empty_prompts_file_is_refused(forerun: Forerun, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n")
    check_error(forerun("bench", "x", "--prompts", str(path)), "no prompts")


def test_the_built_in_prompts_cover_three_kinds() -> None:
    assert {prompt.category for prompt in prompts.BUILT_IN} == {"chat", "copy", "code"}


def test_a_coin_is_right_as_often_as_told(forerun: Forerun, bundle: str) -> None:
    """Always right: every call keeps all it drafts; never right: plain decoding with wider calls."""
    options = ("--pp", "0", "--tg", "40", "--rows", "0", "--repetitions", "1", "--json")
    specs = ("coin:rate=1,tokens=3", "coin:rate=0,tokens=3", "coin:rate=0.5,tokens=1")
    done = forerun("bench", bundle, *options, *(part for spec in specs for part in ("--drafter", spec)))
    rows = {row["test"]: row for row in json.loads(done.out) if row["category"] is None}
    assert rows["spec:coin:rate=1,tokens=3"]["mean_accepted_length"] > 3.5
    assert rows["spec:coin:rate=0,tokens=3"]["mean_accepted_length"] == 1
    assert 1.3 < rows["spec:coin:rate=0.5,tokens=1"]["mean_accepted_length"] < 1.7
    assert all(rows[f"spec:{spec}"]["same_ids"] for spec in specs)


def test_speedups_can_be_drawn(forerun: Forerun, bundle: str, tmp_path: Path) -> None:
    picture = tmp_path / "speedups.png"
    options = ("--pp", "0", "--tg", "20", "--rows", "0", "--repetitions", "1", "--temperature", "0.9")
    done = forerun("bench", bundle, *options, "--seed", "3", "--drafter", "lookup", "--plot", str(picture))
    assert done.code == 0 and "worst" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = forerun(
        "bench", bundle, *options, "--drafter", "lookup", "--plot", str(tmp_path / "no" / "x.png")
    )
    assert refused.code == 2 and "cannot write" in refused.err


def test_shapes_go_to_drafters_that_have_one(forerun: Forerun, bundle: str) -> None:
    options = (
        "--pp",
        "0",
        "--tg",
        "20",
        "--rows",
        "0",
        "--repetitions",
        "1",
        "--json",
        "--shape",
        "chain:tokens=1",
    )
    done = forerun("bench", bundle, *options, "--drafter", "lookup:min_ngram=1", "--drafter", "none")
    row = next(row for row in json.loads(done.out) if row["test"] == "spec:lookup:min_ngram=1")
    assert row["mean_accepted_length"] <= 2


def test_worst_answers_are_medians_over_repetitions() -> None:
    from forerun.cli.measure import Sums, worst_of

    plain = [Sums(speeds=[10.0, 10.0]), Sums(speeds=[10.0, 20.0]), Sums(speeds=[10.0, 10.0])]
    own = [Sums(speeds=[20.0, 5.0]), Sums(speeds=[20.0, 40.0]), Sums(speeds=[1.0, 9.0])]
    assert worst_of(own, plain) == 0.9


def test_the_slowest_prompts_are_those_of_the_slowest_answers() -> None:
    """Answers of turns count for their prompt; an answer that no call decoded says nothing."""
    from forerun.cli.measure import Sums
    from forerun.cli.slowest import slowest_prompts

    named = tuple(prompts.Prompt(("…",) * turns, "same id", "chat") for turns in (1, 2, 1, 1))
    plain = [Sums(speeds=[10.0, 10.0, 10.0, 0.0, 10.0])]
    own = [Sums(speeds=[11.0, 20.0, 9.0, 0.0, 15.0])]
    assert slowest_prompts(named, own, plain, 1) == (named[1],)
    assert slowest_prompts(named, own, plain, 2) == named[:2]
    assert slowest_prompts(named, own, plain, 9) == (named[0], named[1], named[3])


def test_slowest_prompts_are_measured_again(
    forerun: Forerun, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forerun.cli import slowest

    asked: list[tuple[tuple[str, ...], int]] = []
    original = slowest.run_prompts

    def counted(model: Any, plan: Any, sums: Any, progress: Any) -> None:
        asked.append((plan.drafters, len(plan.prompts)))
        original(model, plan, sums, progress)

    monkeypatch.setattr(slowest, "run_prompts", counted)
    options = ("--pp", "0", "--tg", "8", "--rows", "0", "--repetitions", "1", "--json", "--confirm", "2")
    done = forerun("bench", bundle, *options, "--drafter", "lookup", "--drafter", "none")
    assert asked == [(("lookup",), 2)] * slowest.REPETITIONS
    rows = [row for row in json.loads(done.out) if row["test"] == "spec:lookup"]
    assert [row["worst_speedup"] is not None for row in rows] == [True] + [False] * (len(rows) - 1)
    check_error(forerun("bench", "x", "--confirm", "-1"), "--confirm")
