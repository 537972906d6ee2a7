"""Answers saved to files and gone on with elsewhere; drafters with networks are in tests/training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_answers import answer_elsewhere, answer_restored

import forerun
from forerun.errors import ContextFullError, OptionError, OutputError, SavedSequenceError, SequencesBusyError
from forerun.runtime.model import Model

DRAFTERS = ("none", "lookup:min_ngram=1", "self:layers=2", "self:skip=a1+f1", "auto")
SAMPLED: tuple[dict[str, Any], ...] = ({}, {"temperature": 1.0, "seed": 5})
EXITS = ("never", "confidence:layers=0+1,threshold=0.05")
PROMPT = [1, 2, 3, 1, 2]


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[Model]:
    with forerun.load(tiny_bundle, threads=2, sequences=2) as model:
        yield model


def test_answers_go_on_in_another_process(model: Model, tiny_bundle: Path, tmp_path: Path) -> None:
    """Every drafter, greedy and sampled, with rows that left early: the ids that the same model goes on with."""
    for exits in EXITS:
        first = model.generate(
            PROMPT, max_tokens=20, ignore_end=True, exit=exits, reuse_cache=False
        ).complete()
        model.save(first, tmp_path / "saved")
        text = [*PROMPT, *first.ids, 7, 8]
        asked, expected = [], []
        for sampled in SAMPLED:
            options = {"max_tokens": 25, "ignore_end": True, "exit": exits, **sampled}
            answer_restored(model, tmp_path / "saved", [(text, {"max_tokens": 0})])
            expected.append(model.generate(text, **options).complete().ids)
            asked += [(text, {**options, "drafter": drafter}) for drafter in DRAFTERS]
        found = answer_elsewhere(tiny_bundle, tmp_path / "saved", asked)
        assert [ids for ids, _ in found] == [ids for ids in expected for _ in DRAFTERS]
        assert {cached for _, cached in found} == {len(PROMPT) + 19}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.lists(st.integers(0, 36), min_size=1, max_size=40),
    before=st.integers(1, 30),
    drafter=st.sampled_from(DRAFTERS),
    sampled=st.sampled_from(SAMPLED),
    loop=st.sampled_from(["native", "python"]),
)
def test_an_answer_in_two_parts_is_the_answer(
    model: Model, tmp_path: Path, prompt: list[int], before: int, drafter: str, sampled: dict, loop: str
) -> None:
    """Cut anywhere and gone on with: prompt and first part are the second part's prompt."""
    options = {"ignore_end": True, "drafter": drafter, "loop": loop, **sampled}
    whole = model.generate(prompt, max_tokens=before + 12, reuse_cache=False, **options).complete().ids
    first = model.generate(prompt, max_tokens=before, reuse_cache=False, **options).complete()
    model.save(first, tmp_path / "saved")
    text = [*prompt, *first.ids]
    [(ids, cached)] = answer_restored(model, tmp_path / "saved", [(text, {"max_tokens": 12, **options})])
    assert [*first.ids, *ids] == whole
    assert cached == len(text) - 1


def test_restoring_names_the_rows(model: Model, tmp_path: Path) -> None:
    answer = model.generate(PROMPT, max_tokens=4, ignore_end=True).complete()
    model.save(answer, tmp_path / "saved")
    assert model.restore(tmp_path / "saved") == [*PROMPT, *answer.ids[:-1]]


def test_only_what_the_cache_holds_can_be_saved(tiny_bundle: Path, tmp_path: Path) -> None:
    with forerun.load(tiny_bundle, threads=1) as model:
        answer = model.generate(PROMPT, max_tokens=4, ignore_end=True)
        with pytest.raises(OptionError, match="no longer holds this answer, or does not hold it yet"):
            model.save(answer, tmp_path / "saved")
        with pytest.raises(SequencesBusyError):
            model.restore(tmp_path / "saved")
        answer.complete()
        with pytest.raises(OutputError, match="No such file or directory"):
            model.save(answer, tmp_path / "nowhere" / "saved")
        model.save(answer, tmp_path / "saved")
        model.generate([9, 9, 9], max_tokens=4).complete()
        with pytest.raises(OptionError, match="no longer holds"):
            model.save(answer, tmp_path / "saved")
        model.restore(tmp_path / "saved")
        model.save(answer, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "saved").read_bytes()


def test_a_bad_file_leaves_the_model_usable(tiny_bundle: Path, tmp_path: Path) -> None:
    with forerun.load(tiny_bundle, threads=1, context=20) as model:
        expected = model.generate(PROMPT, max_tokens=8, ignore_end=True).complete().ids
        with pytest.raises(SavedSequenceError, match="cannot open"):
            model.restore(tmp_path / "missing")
        (tmp_path / "short").write_bytes(b"forerun\n")
        with pytest.raises(SavedSequenceError, match="cut off"):
            model.restore(tmp_path / "short")
        answer = model.generate(PROMPT, max_tokens=8, ignore_end=True).complete()
        assert answer.ids == expected and answer.stats.cached_tokens == 0
        model.save(answer, tmp_path / "saved")
    with (
        forerun.load(tiny_bundle, threads=1, context=10) as model,
        pytest.raises(ContextFullError, match="holds 12 positions"),
    ):
        model.restore(tmp_path / "saved")
