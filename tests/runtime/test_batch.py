"""Many answers together: each is what it would be alone, whoever joins, leaves, fails or is cancelled."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import Letters, RandomTrees
from scripted import ScriptedConfig, ScriptedSession
from test_same_ids import SAMPLINGS, SPECS

from forerun.errors import BatchError, ContextFullError, OptionError
from forerun.runtime.drafters.none import NoDrafter
from forerun.runtime.generation import Generation
from forerun.runtime.language import Language
from forerun.runtime.model import Model
from forerun.runtime.protocol import Draft, DraftContext, Drafter
from forerun.runtime.session import full_steps
from forerun.runtime.settings import Sampling

# An early exit reaches a draft of any drafter.
EXITS = ("never", "confidence:layers=1,threshold=0.15", "confidence:layers=0+2,threshold=0.1")


def letter_model(sequences: int, end: frozenset[int] = frozenset(), **options: Any) -> Model:
    """A model over scripted sessions that speaks in letters; `options` go to `ScriptedSession`."""
    language = Language(Letters(), None, end_token_ids=end)  # type: ignore[arg-type]
    return Model(
        "scripted",
        language,
        lambda threads: ScriptedSession(threads=threads, sequences=sequences, **options),
        sequences=sequences,
    )


def calls_of(model: Model) -> list[int]:
    """Rows of every forward so far."""
    return [call.rows for call in model.session.calls]  # type: ignore[attr-defined]


def check_same(together: Generation, alone: Generation) -> None:
    """Ids, text, end and every counter; but what the planner drafts, which names its means, depends on the clock."""
    assert together.ids == alone.ids
    assert together.text == alone.text
    assert together.finish_reason == alone.finish_reason
    if together.stats.origins or alone.stats.origins:
        return
    counters = [
        {name: value for name, value in one.stats.to_dict().items() if not name.endswith(("_ms", "_per_s"))}
        for one in (together, alone)
    ]
    assert counters[0] == counters[1]


@hypothesis_settings(max_examples=120, deadline=None)
@given(
    spec=st.one_of(st.sampled_from(SPECS), st.integers(0, 10**6)),
    sampling=SAMPLINGS,
    exits=st.sampled_from(EXITS),
    prompts=st.lists(st.lists(st.integers(0, 10), min_size=1, max_size=12), min_size=1, max_size=7),
    sequences=st.integers(1, 4),
    max_tokens=st.integers(0, 25),
    end=st.frozensets(st.integers(0, 10), max_size=2),
    stop=st.lists(st.text("abcdefghijk", min_size=1, max_size=2), max_size=1),
    capacity=st.integers(13, 40),
    max_rows=st.sampled_from([1, 5, 64]),
)
def test_answers_together_are_those_alone(
    spec: tuple[str, str | None] | int,
    sampling: Sampling,
    exits: str,
    prompts: list[list[int]],
    sequences: int,
    max_tokens: int,
    end: frozenset[int],
    stop: list[str],
    capacity: int,
    max_rows: int,
) -> None:
    """More prompts than sequences; answers end by end token, stop string, limit or full context."""
    with letter_model(sequences, end, config=ScriptedConfig(max_rows=max_rows), capacity=capacity) as model:
        options: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "exit": exits,
            "stop": stop,
            "reuse_cache": False,
        }
        pieces = [""] * len(prompts)

        def on_text(index: int, piece: str) -> None:
            pieces[index] += piece

        drafters: list[Any] = [
            spec + index if isinstance(spec, int) else spec[0] for index in range(len(prompts))
        ]
        if isinstance(spec, tuple):
            options["shape"] = spec[1]
        alone = [
            model.generate(prompt, drafter=own_drafter(drafter), **options).complete()
            for prompt, drafter in zip(prompts, drafters, strict=True)
        ]
        together = model.generate_batch(
            prompts, drafter=[own_drafter(drafter) for drafter in drafters], on_text=on_text, **options
        )
        for one, other in zip(together, alone, strict=True):
            check_same(one, other)
        assert pieces == [generation.text for generation in together]


def own_drafter(drafter: str | int) -> Any:
    """A spec as it is; a seed as the adversarial drafter."""
    return RandomTrees(drafter, taps=(0, 2)) if isinstance(drafter, int) else drafter


def test_rows_of_all_answers_share_the_calls() -> None:
    with letter_model(4) as model:
        model.generate_batch([[1], [2, 3], [4, 5, 6], [7]], max_tokens=9)
        assert calls_of(model) == [7, *[4] * 8]


def test_a_step_with_exits_shares_its_calls_too() -> None:
    """Nobody leaves here, so every step is one call to the exit and one to the end."""
    with letter_model(3) as model:
        model.generate_batch([[1], [2], [3]], max_tokens=6, exit="confidence:layers=1,threshold=1.5")
        assert calls_of(model) == [3, *[3, 3] * 5]


def test_calls_keep_to_the_rows_of_the_program() -> None:
    with letter_model(5, config=ScriptedConfig(max_rows=4)) as model:
        model.generate_batch([[number] for number in range(5)], max_tokens=4)
        assert calls_of(model) == [4, 1] * 4


def test_a_free_sequence_is_taken_in_the_next_step() -> None:
    """Three answers of five tokens on two sequences: the third starts where the first ended."""
    with letter_model(2) as model:
        model.generate_batch([[1], [2], [3]], max_tokens=5, reuse_cache=False)
        assert calls_of(model) == [2] * 5 + [1] * 5


def test_a_long_prompt_does_not_hold_the_others_up() -> None:
    seen: list[int] = []
    with letter_model(2, config=ScriptedConfig(max_rows=8)) as model:
        model.generate_batch(
            [[1], [index % 11 for index in range(80)]],
            max_tokens=8,
            on_text=lambda index, _: seen.append(index),
        )
    assert seen[:8] == [0] * 8


def test_a_full_context_ends_one_answer_only() -> None:
    prompts = [[1] * 25, [2], [3] * 20]
    with letter_model(3, capacity=28) as model:
        alone = [model.generate(prompt, max_tokens=20, reuse_cache=False).complete() for prompt in prompts]
        together = model.generate_batch(prompts, max_tokens=20, reuse_cache=False)
    assert [one.finish_reason for one in together] == ["context_full", "length", "context_full"]
    for one, other in zip(together, alone, strict=True):
        check_same(one, other)


class Failing(NoDrafter):
    """Plain decoding that fails in its third call, having staged a row."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._calls = 0

    def propose(self, context: DraftContext) -> Draft:
        self._calls += 1
        if self._calls == 3:
            context.session.stage(context.sequence, [1], [-1])
            raise self._error
        return super().propose(context)


class Spoiling(NoDrafter):
    """Leaves its root staged in a state that the next forward refuses."""

    def propose(self, context: DraftContext) -> Draft:
        draft = super().propose(context)
        rows = context.session.stage(context.sequence, draft.tree.token_ids)
        steps = full_steps(context.session.config.layers)[2:4]
        context.session.forward([(context.sequence, row) for row in rows], steps=steps)
        return Draft(draft.tree, done=(4,))


def drafters_with(failing: Drafter, count: int) -> Sequence[Drafter]:
    """`failing` for the second prompt, plain decoding for the others."""
    return [failing if index == 1 else NoDrafter() for index in range(count)]


@pytest.mark.parametrize("failing", [Failing(ValueError("broken")), Spoiling()], ids=["draft", "forward"])
def test_the_failure_of_one_leaves_the_others_alone(failing: Drafter) -> None:
    prompts = [[1], [2], [3], [4]]
    with letter_model(3) as model:
        alone = [model.generate(prompt, max_tokens=9, reuse_cache=False).complete() for prompt in prompts]
        with pytest.raises(BatchError, match="1 of 4 answers failed") as caught:
            model.generate_batch(prompts, max_tokens=9, reuse_cache=False, drafter=drafters_with(failing, 4))
        assert list(caught.value.causes) == [1]
        for index in (0, 2, 3):
            check_same(caught.value.generations[index], alone[index])
        failed = caught.value.generations[1]
        assert failed.ids == alone[1].ids[: len(failed.ids)]
        assert failed.finish_reason is None
        again = model.generate_batch(prompts, max_tokens=9)
        assert [one.ids for one in again] == [one.ids for one in alone]


def test_a_failed_answer_leaves_nothing_in_its_cache() -> None:
    with letter_model(1) as model:
        with pytest.raises(BatchError):
            model.generate_batch([[1, 2, 3]], max_tokens=9, drafter=[Failing(ValueError("broken"))])
        assert model.generate([1, 2, 3], max_tokens=9).complete().stats.cached_tokens == 0


def test_an_interrupt_ends_all_and_leaves_the_model_usable() -> None:
    prompts = [[1, 2, 3], [2], [3]]
    with letter_model(3) as model:
        plain = model.generate_batch(prompts, max_tokens=9)
        with pytest.raises(KeyboardInterrupt) as caught:
            model.generate_batch(
                prompts, max_tokens=9, drafter=drafters_with(Failing(KeyboardInterrupt()), 3)
            )
        again = model.generate_batch(prompts, max_tokens=9)
    assert caught.type is KeyboardInterrupt
    assert [one.ids for one in again] == [one.ids for one in plain]


def test_an_error_of_the_callback_ends_all_at_once() -> None:
    seen: list[int] = []

    def on_text(index: int, piece: str) -> None:
        seen.append(index)
        if len(seen) == 4:
            raise LookupError(piece)

    with letter_model(2) as model:
        # The error holds the batch alive: its sequences must be free even so.
        with pytest.raises(LookupError) as caught:
            model.generate_batch([[1], [2], [3]], max_tokens=9, on_text=on_text)
        assert (len(seen), caught.type) == (4, LookupError)
        assert len(model.generate_batch([[1], [2]], max_tokens=9)[1].ids) == 9


def test_one_answer_can_be_cancelled() -> None:
    prompts = [[1], [2], [3]]
    counts = [0, 0, 0]

    def on_text(index: int, piece: str) -> bool:
        counts[index] += 1
        return (index, counts[index]) != (1, 4)

    with letter_model(2) as model:
        alone = [model.generate(prompt, max_tokens=9, reuse_cache=False).complete() for prompt in prompts]
        together = model.generate_batch(prompts, max_tokens=9, reuse_cache=False, on_text=on_text)
    assert [one.finish_reason for one in together] == ["length", "cancelled", "length"]
    assert together[1].ids == alone[1].ids[:4]
    check_same(together[0], alone[0])
    check_same(together[2], alone[2])


class Slow(NoDrafter):
    """Plain decoding that thinks for 5 ms first."""

    def propose(self, context: DraftContext) -> Draft:
        time.sleep(0.005)
        return super().propose(context)


def test_times_of_others_are_waiting_not_work() -> None:
    start = time.perf_counter()
    with letter_model(2) as model:
        quick, slow = model.generate_batch([[1], [2]], max_tokens=11, drafter=[NoDrafter(), Slow()])
    elapsed_ms = 1000 * (time.perf_counter() - start)
    assert slow.stats.draft_ms >= 50
    assert quick.stats.waited_ms >= 50
    for stats in (quick.stats, slow.stats):
        assert stats.verify_ms > 0
        assert stats.prefill_ms + stats.decode_ms + stats.waited_ms <= elapsed_ms
    assert quick.stats.decode_ms <= elapsed_ms - 50


def test_sequences_of_others_are_left_to_them() -> None:
    """With an answer under way elsewhere the batch makes do with what is free; with none free it says so."""
    with letter_model(2) as model:
        alone = [model.generate([number], max_tokens=6).complete().ids for number in range(3)]
        other = model.generate([0], max_tokens=6)
        first = next(other)
        together = model.generate_batch([[1], [2]], max_tokens=6)
        assert [one.ids for one in together] == alone[1:]
        assert [*first, *other] == list(Letters().decode(alone[0]))
        with model.generate([0]), model.generate([1]), pytest.raises(OptionError, match="all 2 sequences"):
            model.generate_batch([[2]])


@pytest.mark.parametrize(
    ("prompts", "options", "error", "word"),
    [
        ("abc", {}, OptionError, "prompts is one str"),
        ([1, 2], {}, OptionError, "prompt 0 is one int"),
        ([{"role": "user", "content": "Hi"}], {}, OptionError, "prompt 0 is one dict"),
        ([[1], []], {}, OptionError, "empty"),
        ([[1], [99]], {}, OptionError, "vocabulary"),
        ([[1], [1] * 300], {}, ContextFullError, "prompt 1 has 300 tokens"),
        ([[1], [2]], {"drafter": NoDrafter()}, OptionError, "list of 2"),
        ([[1], [2]], {"drafter": [NoDrafter()]}, OptionError, "list of 2"),
        ([[1], [2]], {"drafter": [NoDrafter()] * 2}, OptionError, "one answer at a time"),
        ([[1], [2]], {"temperature": -1}, OptionError, "temperature"),
        ([[1], [2]], {"tokens": 3}, TypeError, "tokens"),
    ],
)
def test_mistakes_are_named_before_anything_runs(
    prompts: Any, options: dict[str, Any], error: type[Exception], word: str
) -> None:
    with letter_model(2) as model:
        with pytest.raises(error, match=word):
            model.generate_batch(prompts, **options)
        assert calls_of(model) == []
        assert model.generate_batch([]) == []
        assert len(model.generate_batch([[1], [2]], max_tokens=3)) == 2


class Accompanied(NoDrafter):
    """Plain decoding that writes down who is beside it."""

    def __init__(self) -> None:
        self.beside: list[int] = []

    def propose(self, context: DraftContext) -> Draft:
        self.beside.append(context.beside)
        return super().propose(context)


def test_answers_know_how_many_are_beside_them() -> None:
    drafters = [Accompanied() for _ in range(4)]
    with letter_model(3, frozenset()) as model:
        model.generate_batch([[1], [2], [3], [4]], max_tokens=6, drafter=drafters)
        assert [set(one.beside) for one in drafters[:3]] == [{2}, {2}, {2}]
        assert set(drafters[3].beside) == {0}
        alone = Accompanied()
        model.generate([1, 2], max_tokens=4, drafter=alone).complete()
        assert set(alone.beside) == {0}
