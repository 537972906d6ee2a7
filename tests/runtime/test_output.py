"""Streaming text: whole characters, stop strings, end tokens."""

from pathlib import Path

import pytest
from byte_model import END_ID, write_tokenizer
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from forerun.errors import BundleError
from forerun.runtime.output import Detokenizer, Output, StopMatcher
from forerun.runtime.settings import Settings
from forerun.runtime.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@hypothesis_settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=12))
def test_pieces_are_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.feed(token_id) for token_id in tokenizer.encode(text)]
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + detokenizer.flush() == text


@hypothesis_settings(max_examples=300, deadline=None)
@given(token_ids=st.lists(st.integers(0, 257), max_size=20))
def test_pieces_of_any_bytes_add_up_to_the_whole_text(tokenizer: Tokenizer, token_ids: list[int]) -> None:
    """Broken UTF-8 too: a piece never has to be taken back."""
    detokenizer = Detokenizer(tokenizer)
    streamed = "".join(map(detokenizer.feed, token_ids)) + detokenizer.flush()
    assert streamed == tokenizer.decode(token_ids)


def test_an_unfinished_character_waits_for_its_bytes(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.feed(token_id) for token_id in tokenizer.encode("a€b")] == ["a", "", "", "€", "b"]


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.text("ab", max_size=4), max_size=8),
    stop=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_cut_at_the_first_match_of_the_whole_text(pieces: list[str], stop: list[str]) -> None:
    """Reference: pieces are joined until one holds a stop string, then cut at the earliest."""
    matcher = StopMatcher(stop)
    shown = "".join(map(matcher.feed, pieces))
    seen = ""
    for piece in pieces:
        seen += piece
        starts = [seen.find(text) for text in stop if text in seen]
        if starts:
            assert matcher.matched
            assert shown == seen[: min(starts)]
            return
    assert not matcher.matched
    assert shown + matcher.flush() == seen


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    matcher = StopMatcher(["END"])
    assert [matcher.feed(piece) for piece in ("a", "E", "N", "x", "EN", "D", "more")] == [
        "a", "", "", "ENx", "", "", "",
    ]  # fmt: skip
    assert matcher.matched


def take_all(tokenizer: Tokenizer, settings: Settings, token_ids: list[int]) -> Output:
    output = Output(settings, tokenizer)
    for token_id in token_ids:
        if output.finish_reason is None:
            output.take((token_id,))
    return output


def test_an_end_token_is_an_id_but_no_text(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("hi"), END_ID, *tokenizer.encode("no")]
    output = take_all(tokenizer, Settings(10, end_token_ids=frozenset({END_ID})), ids)
    assert (output.text, output.finish_reason, output.token_ids) == ("hi", "stop", ids[:3])


def test_the_token_limit_flushes_what_was_held(tokenizer: Tokenizer) -> None:
    output = take_all(tokenizer, Settings(2, stop=("xyz",)), tokenizer.encode("wxyz"))
    assert (output.text, output.finish_reason) == ("wx", "length")


def test_tokens_beyond_the_end_are_not_taken(tokenizer: Tokenizer) -> None:
    output = Output(Settings(10, stop=("b",)), tokenizer)
    taken = output.take(tokenizer.encode("abc"))
    assert (taken.count, taken.text, output.text) == (2, "a", "a")


def test_a_broken_tokenizer_file_is_a_bundle_error(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        Tokenizer(path).encode("a")
