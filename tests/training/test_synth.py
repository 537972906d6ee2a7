"""Synthesis on a scripted model: a function of its recipe, whatever interrupts it."""

from pathlib import Path

import pytest
from byte_model import END_ID, byte_model

from forerun.errors import OptionError
from forerun.runtime.model import Model
from forerun.training.data import CONVERSATIONS_FILE, DataFolder, create_data
from forerun.training.synth import Budget, Recipe, add_texts, distinct_part, synthesize, user_turn

RECIPE = Recipe(prompt_tokens=300, answer_tokens=24, least_distinct=0.2)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    # Loops that rarely end: an end token comes once in some hundred.
    return byte_model(tmp_path, sequences=4, capacity=600, repeat=0.3)


def folder_at(path: Path, recipe: Recipe = RECIPE) -> DataFolder:
    return create_data(path, {"name": "scripted"}, recipe.described())


def test_an_interrupted_synthesis_ends_as_one_that_was_not(tmp_path: Path, model: Model) -> None:
    whole, parts = folder_at(tmp_path / "whole"), folder_at(tmp_path / "parts")
    synthesize(model, whole, RECIPE, Budget(tokens=12_000))
    synthesize(model, parts, RECIPE, Budget(tokens=1))
    assert 0 < parts.state.tokens < whole.state.tokens

    again = folder_at(parts.path)

    def interrupt(what: str, part: float) -> None:
        if again.state.next_index > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(model, again, RECIPE, Budget(tokens=12_000), progress=interrupt)
    synthesize(model, folder_at(parts.path), RECIPE, Budget(tokens=12_000))
    assert (parts.path / CONVERSATIONS_FILE).read_bytes() == (whole.path / CONVERSATIONS_FILE).read_bytes()


def test_conversations_are_turns_of_the_template(tmp_path: Path, model: Model) -> None:
    data = folder_at(tmp_path / "data")
    synthesize(model, data, RECIPE, Budget(tokens=2000))
    turn = user_turn(model)
    conversations = list(data.conversations())
    assert len({one.prompt_ids for one in conversations}) == len(conversations) > 5
    for one in conversations:
        inner = one.prompt_ids[len(turn.before) : len(one.prompt_ids) - len(turn.after)]
        assert one.prompt_ids == (*turn.before, *inner, *turn.after)
        assert END_ID not in inner and len(inner) < RECIPE.prompt_tokens
        assert 4 <= len(one.answer_ids) <= RECIPE.answer_tokens
        assert distinct_part(one.answer_ids) >= RECIPE.least_distinct


def test_given_prompts_are_answered_once(tmp_path: Path, model: Model) -> None:
    prompts = [model.encode_prompt(text) for text in ("Why?", "How?", "Why?", "When?")]
    data = folder_at(tmp_path / "data")
    synthesize(model, data, RECIPE, Budget(tokens=10**9), prompts=prompts)
    answered = [one.prompt_ids for one in data.conversations()]
    assert set(answered) <= {tuple(prompt) for prompt in prompts}
    assert len(set(answered)) == len(answered) >= 2
    assert data.state.dropped is not None and data.state.dropped["prompt seen before"] == 1
    assert data.state.next_index == 4


def test_texts_are_taken_as_they_are(tmp_path: Path) -> None:
    data = folder_at(tmp_path / "data")
    for _ in range(2):
        add_texts(data, [list(range(10)), [7]], piece_tokens=4)
    assert [one.answer_ids for one in data.conversations()] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]


def test_a_model_without_a_template_cannot_write_prompts(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no chat template"):
        user_turn(byte_model(tmp_path, template=False))


def test_distinct_part() -> None:
    assert distinct_part([1, 2, 3]) == 1.0
    assert distinct_part([1, 1, 1, 1, 1]) == 0.5
    assert distinct_part([1, 2] * 10) == pytest.approx(2 / 17)
