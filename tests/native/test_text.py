"""The core's text against its definitions in Python: the `tokenizers` library, `Detokenizer`, `StopMatcher`."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_forms import FORMS, SAMPLE, SPECIAL, open_text, put_text
from tokenizers import Tokenizer

from forerun.compiler.text import Language, text_file
from forerun.compiler.text.chat_pieces import ChatPieces
from forerun.errors import BundleError, OptionError
from forerun.runtime.library import Status
from forerun.runtime.native_text import NativeText
from forerun.runtime.output import Detokenizer, StopMatcher
from forerun.runtime.session import LoadedProgram

# First and last code points of the ranges that random texts are drawn from.
SCRIPTS = (
    *((0x20, 0x24F), (0x300, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0xE7F), (0x1100, 0x11FF)),
    *((0x1AB0, 0x1ACF), (0x1E00, 0x20FF), (0x3000, 0x31FF), (0x4E00, 0x4EFF), (0xAC00, 0xACFF)),
    *((0xF900, 0xFAFF), (0x11900, 0x1193F), (0x1F600, 0x1F64F), (0xE000, 0xE010), (0x10FFF0, 0x10FFFF)),
)
SEEDS = (0, 1, 2)


class Definition:
    """A tokenizer as the runtime's Python uses it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()

    def encode(self, text: str | bytes) -> list[int]:
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


Pair = tuple[Definition, NativeText]


@pytest.fixture(scope="module", params=FORMS)
def pair(request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tokenizer of each form, and the same through the core."""
    # Saved and read again: it is what the file says that both have to follow.
    written = FORMS[request.param]().to_str()
    text = open_text(tiny_bundle, tmp_path_factory.mktemp("text"), written)
    return Definition(Tokenizer.from_str(written)), text


def random_text(generator: random.Random, added: Sequence[str]) -> str:
    """Spaces, letters, added tokens, and characters of all scripts."""
    parts = []
    for _ in range(generator.randrange(60)):
        first, last = generator.choice(SCRIPTS)
        other = chr(generator.randint(first, last))
        parts.append(
            generator.choice((other, other, generator.choice(" ab\n1'é▁"), " ", generator.choice(added)))
        )
    return "".join(parts)


def random_ids(generator: random.Random, size: int) -> list[int]:
    """Ids of tokens, many of them bytes, and a few that do not exist."""
    return [generator.choice((generator.randrange(size + 3), generator.randrange(256))) for _ in range(20)]


def streamed(text: NativeText, ids: Sequence[int], stop: Sequence[str] = ()) -> list[str]:
    decoder = text.decoder(stop)
    return [*(decoder.feed(token_id).text for token_id in ids), decoder.flush().text]


@pytest.mark.parametrize("seed", SEEDS)
def test_texts_have_the_same_ids(pair: Pair, seed: int) -> None:
    definition, text = pair
    generator = random.Random(seed)
    added = [token.content for token in definition.tokenizer.get_added_tokens_decoder().values()]
    for _ in range(80):
        given_text = random_text(generator, added)
        assert text.encode(given_text) == definition.encode(given_text), repr(given_text)


def test_long_texts_have_the_same_ids(pair: Pair) -> None:
    definition, text = pair
    for sample in (*SAMPLE, " " * 500, "a" * 500, "\n \n" * 200, "", "▁" * 50):
        assert text.encode(sample) == definition.encode(sample)


@settings(deadline=None, max_examples=40)
@given(data=st.binary(max_size=40))
def test_any_bytes_have_the_same_ids(pair: Pair, data: bytes) -> None:
    definition, text = pair
    assert text.encode(data) == definition.encode(data)


@pytest.mark.parametrize("seed", SEEDS)
def test_ids_have_the_same_text(pair: Pair, seed: int) -> None:
    """Whole lists, and piece by piece in the same pieces."""
    definition, text = pair
    generator = random.Random(seed)
    for _ in range(60):
        ids = random_ids(generator, definition.size)
        detokenizer = Detokenizer(definition)
        assert text.decode(ids) == definition.decode(ids), ids
        assert streamed(text, ids) == [*map(detokenizer.feed, ids), detokenizer.flush()], ids


def test_texts_come_back_in_whole_characters(pair: Pair) -> None:
    definition, text = pair
    ids = definition.encode(SAMPLE[2])
    pieces = streamed(text, ids)
    detokenizer = Detokenizer(definition)
    assert "".join(pieces) == "".join([*map(detokenizer.feed, ids), detokenizer.flush()])
    assert len(pieces) > 100


@settings(deadline=None, max_examples=60)
@given(
    ids=st.lists(st.integers(0, 60), max_size=40),
    stop=st.lists(st.text("▁ abé<|", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_cut_where_they_do_in_python(pair: Pair, ids: list[int], stop: list[str]) -> None:
    definition, text = pair
    vocabulary = sorted(definition.tokenizer.get_vocab().items(), key=lambda item: (len(item[0]), item[1]))
    letters = [token_id for token, token_id in vocabulary if set(token) <= set("Ġ▁ abéÃ©<|")] or [0]
    ids = [letters[place % len(letters)] for place in ids]
    decoder = text.decoder(stop)
    for _ in range(2):  # the second answer knows nothing of the first
        detokenizer, matcher = Detokenizer(definition), StopMatcher(stop)
        for token_id in ids:
            piece = decoder.feed(token_id)
            assert piece.text == matcher.feed(detokenizer.feed(token_id))
            assert piece.stopped == matcher.matched
        last = decoder.flush()
        assert last.text == matcher.feed(detokenizer.flush()) + matcher.flush()
        assert last.stopped == matcher.matched


# ---- one form is enough from here on ----


@pytest.fixture(scope="module")
def qwen() -> str:
    return FORMS["llama3"]().to_str()


CHAT = ChatPieces(
    joints={("", "user"): "<u>", ("user", "assistant"): "\n<a>", ("assistant", "user"): "</a>\n<u>"},
    ends={"user": "\n<a>"},
    strips={"user": 3, "assistant": 1},
    refused={"assistant": ("</think>",)},
)


@pytest.fixture(scope="module")
def talker(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, qwen: str) -> NativeText:
    """A text with special ids and a chat template of made-up pieces."""
    return open_text(tiny_bundle, tmp_path_factory.mktemp("chat"), qwen, Language(5, (7, 9), True, CHAT))


def test_special_ids(talker: NativeText, tiny_bundle: Path, tmp_path: Path, qwen: str) -> None:
    assert (talker.bos_id, talker.end_ids, talker.add_bos, talker.has_chat) == (5, (7, 9), True, True)
    plain = open_text(tiny_bundle, tmp_path / "plain", qwen)
    assert (plain.bos_id, plain.end_ids, plain.add_bos, plain.has_chat) == (None, (), False, False)
    assert talker.vocabulary_size == Tokenizer.from_str(qwen).get_vocab_size()


def messages(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_chat_prompts(talker: NativeText) -> None:
    turns = [
        ("user", "\u2003 Hi \u00a0\n"),
        ("assistant", " é \x1f"),
        ("user", " "),
        ("assistant", ""),
        ("user", "b"),
    ]
    for count in (1, 3, 5):
        assert talker.chat_prompt(messages(*turns[:count])) == CHAT.prompt(turns[:count])
    assert CHAT.prompt(turns[:3]) == "<u>Hi\n<a>é \x1f</a>\n<u>\n<a>"


@pytest.mark.parametrize(
    ("turns", "word"),
    [
        ([], "at least one"),
        ([("system", "x")], "does not allow at the beginning"),
        ([("user", "x"), ("user", "y")], "message 1 is of the user"),
        ([("user", "x"), ("assistant", "y")], "end with one of the user"),
        ([("tool", "x")], '"tool"; it must be "system"'),
        ([("user", "x"), ("assistant", "y</think>z"), ("user", "x")], "</think>"),
    ],
)
def test_conversations_that_a_template_does_not_allow(
    talker: NativeText, turns: list[tuple[str, str]], word: str
) -> None:
    with pytest.raises(OptionError, match=word):
        talker.chat_prompt(messages(*turns))


def test_a_text_without_a_template(tiny_bundle: Path, tmp_path: Path, qwen: str) -> None:
    text = open_text(tiny_bundle, tmp_path / "plain", qwen, Language(chat="the template rhymes"))
    with pytest.raises(BundleError, match="chat prompts for this model: the template rhymes"):
        text.chat_prompt(messages(("user", "Hi")))


def test_special_tokens_are_read_and_not_written(talker: NativeText) -> None:
    ids = talker.encode(f"{SPECIAL[0]}a{SPECIAL[1]}")
    assert len(ids) == 3 and talker.decode(ids) == "a"


@pytest.mark.parametrize(
    ("stop", "word"), [([""], "empty"), (["a", ""], "stop string 1"), (["a" * 70000], "longer")]
)
def test_bad_stop_strings(talker: NativeText, stop: list[str], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        talker.decoder(stop)


def test_texts_and_decoders_outlive_what_they_come_from(tiny_bundle: Path, tmp_path: Path, qwen: str) -> None:
    decoder = open_text(tiny_bundle, tmp_path / "brief", qwen).decoder()
    assert decoder.feed(40).text


def test_a_bundle_without_a_text_says_why(own_bundle: Path, tiny_bundle: Path) -> None:
    from tiny_model import make_manifest, write_manifest

    with pytest.raises(BundleError, match=r"no text\.bin: it was compiled without a tokenizer") as caught:
        NativeText(LoadedProgram(tiny_bundle))
    assert caught.value.status == Status.TEXT
    write_manifest(own_bundle, make_manifest(own_bundle, no_text="its model is WordPiece"))
    with pytest.raises(BundleError, match=r"no text\.bin: its model is WordPiece"):
        NativeText(LoadedProgram(own_bundle))


def test_a_text_is_vouched_for(own_bundle: Path, qwen: str) -> None:
    put_text(own_bundle, text_file(qwen))
    path = own_bundle / "text.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"text\.bin was changed"):
        LoadedProgram(own_bundle)


def try_text(bundle: Path, data: bytes) -> str:
    """What an opened damaged text.bin says, whatever it is; it may only not crash."""
    program = LoadedProgram(put_text(bundle, data))
    try:
        text = NativeText(program)
        text.encode("  a b 12 é\u0301 <tool> <|im_start|>\n x")
        text.decode(range(300))
        streamed(text, range(100, 200), ["ab"])
        text.chat_prompt(messages(("user", " a ")))
    except (BundleError, OptionError) as error:
        return str(error)
    finally:
        program.close()
    return ""


Damage = Callable[[random.Random, bytes], bytes]


def cut(generator: random.Random, data: bytes) -> bytes:
    return data[: generator.randrange(len(data))]


def flip(generator: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(damaged)


def flip_the_directory(generator: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    damaged[generator.randrange(8 + 24 * 16)] = generator.choice((0, 1, 8, 127, 255))
    return bytes(damaged)


@pytest.mark.parametrize("damage", [cut, flip, flip_the_directory])
@pytest.mark.parametrize("form", ["qwen", "gemma"])
def test_damaged_texts_do_no_harm(own_bundle: Path, form: str, damage: Damage) -> None:
    data = text_file(FORMS[form]().to_str(), Language(chat=CHAT))
    assert try_text(own_bundle, data) == ""
    generator = random.Random(0)
    refused = [try_text(own_bundle, damage(generator, data)) for _ in range(60)]
    # All cuts take something away; of the flips, those that hit what is checked.
    assert sum(bool(text) for text in refused) >= (60 if damage is cut else 1)
