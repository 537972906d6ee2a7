"""The Kotlin API over JNI: the ids, texts and errors of Python's, and what an app does besides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kotlin_build import Probe, answer_request, ids_of, text_of
from spoken_bundle import END_IDS

import forerun
from forerun.runtime.model import Model

DRAFTERS = (
    ("none", ""),
    ("lookup:min_ngram=1,tokens=5", ""),
    ("lookup:min_ngram=1,max_ngram=2,branches=4", "tree:branches=2+2+1"),
    ("self:layers=1,tokens=5", ""),
    ("self:skip=a1+f1", "cape:siblings=2"),
    ("auto", ""),
)
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0, "seed": 2**64 - 5},
    {"temperature": 0.8, "top_k": 5, "seed": 6},
    {"temperature": 0.7, "top_p": 0.9, "seed": 7, "exit": "confidence:layers=0+1,threshold=0.05"},
)
PROMPTS = ([5, 6, 7, 5, 6], [1, 300, 700, 2] * 10)
NAMES = ("prompt_tokens", "cached_tokens", "generated_tokens", "verify_calls", "drafted", "accepted")


@pytest.fixture(scope="module")
def model(spoken_bundle: Path) -> Iterator[Model]:
    with forerun.load(spoken_bundle, threads=2) as model:
        yield model


def test_answers_are_pythons(probe: Probe, model: Model, spoken_bundle: Path) -> None:
    """Ids, pieces, why they end, and the trace of acceptance: every drafter, greedy and drawn."""
    asked = [(d, s, p, x) for d, s in DRAFTERS for p in PROMPTS for x in SETTINGS]
    answers = probe("answers", spoken_bundle, [answer_request(d, s, p, 40, **x) for d, s, p, x in asked])
    assert len(answers) == len(asked)
    for (drafter, shape, prompt, settings), answer in zip(asked, answers, strict=True):
        expected = model.generate(
            prompt, drafter=drafter, shape=shape or None, max_tokens=40, reuse_cache=False, **settings
        )
        pieces = list(expected)
        assert ids_of(answer[0]) == expected.ids
        assert text_of(answer[1].replace(",", "")) == "".join(pieces)
        assert answer[2].lower() == expected.finish_reason
        if not drafter.startswith("auto"):  # which goes by times
            assert [int(count) for count in answer[3:]] == [getattr(expected.stats, name) for name in NAMES]
    assert {answer[2] for answer in answers} == {"STOP", "LENGTH"}


def test_characters_come_whole(probe: Probe, model: Model, spoken_bundle: Path) -> None:
    """Emojis of two tokens and NULs; stop strings that begin in the middle of a token and end in the next."""
    settings: list[dict[str, Any]] = [
        {"temperature": 1.0, "seed": seed, "ignore_end": True} for seed in range(4)
    ]
    texts = [model.generate(PROMPTS[0], max_tokens=100, **drawn).complete().text for drawn in settings]
    assert all(text.count("😀") > 1 for text in texts) and "\0" in "".join(texts)
    places = [text.rindex("😀") for text in texts]
    stops = [text[place : place + 2] for text, place in zip(texts, places, strict=True)]
    requests = [answer_request("none", "", PROMPTS[0], 100, **drawn) for drawn in settings]
    requests += [
        answer_request("lookup", "", PROMPTS[0], 100, stop=("none", stop), **drawn)
        for stop, drawn in zip(stops, settings, strict=True)
    ]
    answers = probe("answers", spoken_bundle, requests)
    found = ["".join(text_of(piece) for piece in answer[1].split(",")) for answer in answers]
    assert found[:4] == texts
    assert found[4:] == [text[: text.index(stop)] for text, stop in zip(texts, stops, strict=True)]
    assert {answer[2] for answer in answers[4:]} == {"STOP"}


def test_texts_are_pythons(probe: Probe, model: Model, spoken_bundle: Path) -> None:
    generator = random.Random(3)
    texts = ["a", "😀 ü 日本", "nul \0 nul", "<end>"]
    texts += ["".join(chr(generator.choice((65, 233, 0x20AC, 0x1F600))) for _ in range(50)) for _ in range(5)]
    answers = probe("texts", spoken_bundle, [[text.encode().hex()] for text in texts])
    for text, answer in zip(texts, answers, strict=True):
        assert ids_of(answer[0]) == model.language.tokenizer.encode(text)
        assert text_of(answer[1]) == text.replace("<end>", "")
        messages = [{"role": role, "content": text} for role in ("user", "assistant")]
        assert ids_of(answer[2]) == model.encode_prompt(messages)
        assert answer[3] == str(list(END_IDS))


def test_a_conversation_computes_only_what_is_new(probe: Probe, model: Model, spoken_bundle: Path) -> None:
    questions = ("one", "two 😀")
    answers = probe("chats", spoken_bundle, [("lookup", question) for question in questions])
    messages: list[dict[str, str]] = []
    held = 0
    for question, answer in zip(questions, answers, strict=True):
        messages.append({"role": "user", "content": question})
        expected = model.generate(messages, max_tokens=16, reuse_cache=False).complete()
        messages.append({"role": "assistant", "content": expected.text})
        assert text_of(answer[0]) == expected.text
        assert int(answer[1]) == len(expected.prompt_ids)
        assert int(answer[2]) >= held
        held = len(expected.prompt_ids) - 1
    assert int(answers[0][2]) == 0 < int(answers[1][2])


def test_cancelling_ends_an_answer_and_leaves_the_session_usable(
    probe: Probe, model: Model, spoken_bundle: Path
) -> None:
    by_coroutine, by_call, after = probe("cancel", spoken_bundle)
    assert 3 <= int(by_coroutine[0]) < 150
    assert int(by_call[0]) < 19 and by_call[1] == "CANCELLED"
    expected = model.generate([5, 6, 7, 8, 5, 6], max_tokens=20, ignore_end=True).complete()
    assert ids_of(after[0]) == expected.ids


def test_what_is_closed_says_so(probe: Probe, spoken_bundle: Path) -> None:
    told = {name: text_of(text) for name, text in probe("closed", spoken_bundle)}
    for name, text in told.items():
        if name == "start after a closed answer":
            assert text == "returned true"
        else:
            assert text.startswith("IllegalStateException "), (name, text)
            assert any(word in text for word in ("closed; ", "over (LENGTH); ", "under way")), (name, text)
    assert len(told) == 11


def test_mistakes_carry_the_cores_words(probe: Probe, spoken_bundle: Path) -> None:
    told = {name: text_of(text) for name, text in probe("mistakes", spoken_bundle)}
    wanted = {
        "path": ("ForerunException 20 ", f"{spoken_bundle}/größe 😀"),
        "NUL": ("IllegalArgumentException ", "U+0000"),
        "target": ("ForerunException 26 ", "moon"),
        "capacity": ("ForerunException 1 ", "capacity is -3"),
        "drafter": ("ForerunException 1 ", "psychic"),
        "empty prompt": ("ForerunException 1 ", "at least one token"),
        "id": ("ForerunException 1 ", "token id 100000"),
        "long prompt": ("ForerunException 4 ", "shorten the prompt"),
        "top_p": ("ForerunException 1 ", "top_p"),
        "stop string": ("ForerunException 1 ", "stop"),
        "rewind": ("ForerunException 1 ", "1000"),
        "after all that": ("returned 4", ""),
    }
    assert told.keys() == wanted.keys()
    for name, (start, part) in wanted.items():
        assert told[name].startswith(start) and part in told[name], (name, told[name])


def test_opening_and_closing_takes_no_memory(probe: Probe, spoken_bundle: Path) -> None:
    """200 bundles, sessions and answers, half of them given up. The JVM's own heap is kept from growing."""
    ((before, after),) = probe("cycles", spoken_bundle, (), "-Xms24m", "-Xmx24m", "-XX:+AlwaysPreTouch")
    assert int(after) - int(before) < 1024


def test_two_sessions_on_two_threads(probe: Probe, model: Model, spoken_bundle: Path) -> None:
    first, second = probe("together", spoken_bundle)
    assert first == second
    for seed, answer in enumerate(first[0].split(";")):
        options: dict[str, Any] = {"max_tokens": 60, "temperature": 1.0, "seed": seed, "ignore_end": True}
        assert (
            ids_of(answer) == model.generate([5, 6, 7, 8, 5, 6], reuse_cache=False, **options).complete().ids
        )


def test_costs_are_measured_kept_and_set(probe: Probe, spoken_bundle: Path) -> None:
    none, measured, kept, rewound = probe("tune", spoken_bundle)
    assert none == ["null", "9"]
    # Where more rows are dear, as they may be on a busy machine, no more of them are measured.
    rows = [int(count) for count in measured[0].split(",")]
    assert len(rows) >= 2 and rows == [1, 2, 3, 4, 6, 8, 12][: len(rows)]
    assert measured[1:] == ["true", "true", "9"]
    assert kept == ["1,4", "2.0,3.0"]
    assert rewound == ["2", "200", "2"]
