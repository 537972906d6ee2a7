"""The public face: prompts, options, streaming, cancellation, several sequences, cache reuse."""

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from byte_model import END_ID, TEMPLATE, byte_model
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from forerun.errors import ContextFullError, ForerunError, OptionError
from forerun.runtime.model import Model
from forerun.runtime.protocol import Draft, DraftContext, Observation, SessionLike
from forerun.runtime.tree import root_only


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("byte-model")


@pytest.fixture
def model(folder: Path) -> Model:
    return byte_model(folder, capacity=400)


def test_a_text_becomes_a_user_message(model: Model) -> None:
    text = model.language.tokenizer._tokenizer.decode(model.encode_prompt("Hi"), skip_special_tokens=False)
    assert text == "<|start|>user\nHi<|end|>\n<|start|>assistant\n"
    assert model.encode_prompt([{"role": "user", "content": "Hi"}]) == model.encode_prompt("Hi")
    assert model.encode_prompt("Hi", raw=True) == model.language.tokenizer.encode("Hi")


def test_without_a_template_text_is_raw(folder: Path) -> None:
    model = byte_model(folder, template=False)
    assert model.encode_prompt("Hi") == model.language.tokenizer.encode("Hi")
    with pytest.raises(OptionError, match="no chat template"):
        model.encode_prompt([{"role": "user", "content": "Hi"}])


def test_the_first_token_of_raw_prompts_is_the_models(folder: Path) -> None:
    from dataclasses import replace

    model = byte_model(folder)
    model.language = replace(model.language, bos_token_id=END_ID)
    assert model.encode_prompt("Hi", raw=True)[0] == END_ID
    with pytest.raises(OptionError, match="empty"):
        model.encode_prompt("", raw=True)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    prompt=st.text(min_size=1, max_size=20), seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 0.8])
)
def test_streamed_pieces_are_the_text(folder: Path, prompt: str, seed: int, temperature: float) -> None:
    with byte_model(folder, seed=seed) as model:
        generation = model.generate(
            prompt, max_tokens=30, temperature=temperature, drafter="lookup", raw=True
        )
        pieces = list(generation)
    assert all(pieces)
    assert "".join(pieces) == generation.text
    ids = [token_id for token_id in generation.ids if token_id != END_ID]
    assert generation.text == model.language.tokenizer.decode(ids)
    assert generation.finish_reason in ("length", "stop")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"temperature": math.nan}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"drafter": "medusa"}, "lookup"),
        ({"drafter": "self:layers=99"}, "layers"),
        ({"drafter": "none", "shape": "chain"}, "shape"),
        ({"exit": "soon"}, "confidence"),
        ({"exit": "confidence:layers=99"}, "layers"),
        ({"acceptance": "typical"}, "exact"),
        ({"threads": 0}, "threads"),
        ({"prompt": ""}, "empty"),
        ({"prompt": []}, "empty"),
        ({"prompt": [999]}, "vocabulary"),
        ({"prompt": [-1]}, "vocabulary"),
    ],
)
def test_user_mistakes_are_named_and_leave_the_model_usable(
    model: Model, options: dict[str, Any], word: str
) -> None:
    """The message names the thing at fault or what is allowed, and the sequence is free again."""
    with pytest.raises(OptionError, match=word):
        model.generate(options.pop("prompt", "Hi"), raw=True, **options)
    assert len(model.generate("Hi", max_tokens=3, ignore_end=True).complete().ids) == 3


def test_no_tokens_asked_for_is_an_empty_answer(model: Model) -> None:
    generation = model.generate("Hi", max_tokens=0).complete()
    assert (generation.ids, generation.text, generation.finish_reason) == ([], "", "length")
    assert generation.stats.prefill_ms == 0


def test_a_full_context_ends_the_answer_and_keeps_it(folder: Path) -> None:
    """The last token needs no room: it is never read back."""
    prompt = [1, 2, 3, 4]
    for drafter in ("none", "lookup:min_ngram=1", "self:tokens=6"):
        with byte_model(folder, capacity=20) as model:
            generation = model.generate(prompt, drafter=drafter, ignore_end=True).complete()
        assert generation.finish_reason == "context_full"
        assert len(generation.ids) == 20 - len(prompt) + 1
        assert generation.text == model.language.tokenizer.decode(generation.ids)


def test_a_prompt_longer_than_the_context_is_refused(folder: Path) -> None:
    with byte_model(folder, capacity=20) as model:
        with pytest.raises(ContextFullError, match="21 tokens, the context holds 20"):
            model.generate([1] * 21)
        assert model.generate([1] * 20, ignore_end=True).complete().finish_reason == "context_full"


def test_cancelling_keeps_the_text_so_far(model: Model) -> None:
    generation = model.generate("Hi", ignore_end=True, max_tokens=200)
    pieces = []
    for piece in generation:
        pieces.append(piece)
        if len(pieces) == 5:
            generation.cancel()
    assert generation.finish_reason == "cancelled"
    assert "".join(pieces) == generation.text
    assert 5 <= len(generation.ids) < 200
    assert model.generate("Hi", max_tokens=1).complete().finish_reason in ("length", "stop")


def test_cancelling_works_from_another_thread_and_between_pieces_of_a_prompt(folder: Path) -> None:
    with byte_model(folder, capacity=2000) as model:
        seen: list[tuple[int, int]] = []

        def stop(done: int, total: int) -> None:
            seen.append((done, total))
            worker = threading.Thread(target=generation.cancel)
            worker.start()
            worker.join()

        generation = model.generate([1] * 1000, on_prefill=stop)
        generation.complete()
    assert seen == [(64, 1000)]
    assert (generation.ids, generation.text, generation.finish_reason) == ([], "", "cancelled")


def test_progress_of_a_long_prompt_is_reported(folder: Path) -> None:
    with byte_model(folder, capacity=300) as model:
        seen: list[tuple[int, int]] = []
        model.generate([1] * 150, max_tokens=1, on_prefill=lambda *pair: seen.append(pair)).complete()
        assert seen == [(64, 150), (128, 150), (150, 150)]
        assert [call.rows for call in model.session.calls] == [64, 64, 22]  # type: ignore[attr-defined]


def test_leaving_early_frees_the_sequence(model: Model) -> None:
    for leave in ("close", "with", "forget", "break"):
        generation = model.generate("Hi", ignore_end=True, max_tokens=50)
        next(generation)
        with pytest.raises(OptionError, match="under way"):
            model.generate("Ho")
        if leave == "close":
            generation.close()
        elif leave == "with":
            with generation:
                pass
        assert generation.finish_reason == (None if leave in ("forget", "break") else "cancelled")
        del generation
        model.generate("Hi", max_tokens=1).complete()


def test_answers_in_several_sequences_take_turns(folder: Path) -> None:
    alone = []
    prompts = ["First", "Second", "Third"]
    options: dict[str, Any] = {"max_tokens": 25, "ignore_end": True, "drafter": "self:layers=2"}
    with byte_model(folder) as model:
        for prompt in prompts:
            alone.append(model.generate(prompt, **options).complete().ids)
    with byte_model(folder, sequences=3) as model:
        generations = [model.generate(prompt, **options) for prompt in prompts]
        under_way = list(generations)
        while under_way:
            under_way = [generation for generation in under_way if next(generation, None) is not None]
    assert [generation.ids for generation in generations] == alone


def test_a_conversation_reads_only_what_is_new(model: Model) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    first = model.generate(messages, max_tokens=40).complete()
    follow = [*model.encode_prompt(messages), *first.ids, 1, 2, 3]
    again = model.generate(follow, max_tokens=20, ignore_end=True).complete()
    fresh = model.generate(follow, max_tokens=20, ignore_end=True, reuse_cache=False).complete()
    assert again.stats.cached_tokens >= len(first.prompt_ids) + len(first.ids) - 1
    assert fresh.stats.cached_tokens == 0
    assert again.ids == fresh.ids


def test_the_same_prompt_again_still_runs_its_last_row(model: Model) -> None:
    first = model.generate("Hi", max_tokens=10).complete()
    second = model.generate("Hi", max_tokens=10).complete()
    assert second.ids == first.ids
    assert second.stats.cached_tokens == second.stats.prompt_tokens - 1


class Failing:
    """A drafter that fails in its third call, having staged a row."""

    name = "failing"
    summary = "fails"
    taps = ()

    def begin(self, session: SessionLike, sequence: int, prompt: Sequence[int]) -> None:
        self._calls = 0

    def propose(self, context: DraftContext) -> Draft:
        self._calls += 1
        if self._calls == 3:
            context.session.stage(context.sequence, [1], [-1])
            raise KeyboardInterrupt
        return Draft(root_only(context.root))

    def observe(self, observation: Observation) -> None:
        pass


def test_a_failure_inside_a_step_leaves_nothing_behind(model: Model) -> None:
    plain = model.generate("Hi", max_tokens=12).complete()
    generation = model.generate("Hi", max_tokens=12, drafter=Failing())
    with pytest.raises(KeyboardInterrupt):
        generation.complete()
    assert plain.ids[: len(generation.ids)] == generation.ids
    again = model.generate("Hi", max_tokens=12).complete()
    assert again.ids == plain.ids
    assert again.stats.cached_tokens == 0


def test_threads_can_change_between_answers(model: Model) -> None:
    before = model.session
    ids = model.generate("Hi", max_tokens=5, threads=1).complete().ids
    assert (model.threads, before.is_closed) == (1, True)  # type: ignore[attr-defined]
    assert model.generate("Hi", max_tokens=5, threads=2).complete().ids == ids
    generation = model.generate("Hi", max_tokens=5)
    next(generation)
    with pytest.raises(OptionError, match="under way"):
        model.generate("Hi", threads=1)
    generation.close()


def test_a_closed_model_says_so(model: Model) -> None:
    session = model.session
    generation = model.generate("Hi", max_tokens=5)
    model.close()
    model.close()
    assert session.is_closed  # type: ignore[attr-defined]
    generation.close()
    with pytest.raises(ForerunError, match="closed"):
        model.generate("Hi")


def test_stop_strings_end_the_answer_before_them(model: Model) -> None:
    whole = model.generate("Hi", max_tokens=60, ignore_end=True).complete()
    stop = next(c for c in whole.text if c != "\ufffd" and c.isprintable())
    cut = model.generate("Hi", max_tokens=60, ignore_end=True, stop=stop).complete()
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.ids == whole.ids[: len(cut.ids)]


def test_the_template_of_the_tests_is_the_one_in_use() -> None:
    assert "add_generation_prompt" in TEMPLATE
