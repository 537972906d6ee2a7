"""SmolLM2's own tokenizer and chat template through the native core: a large corpus in many languages."""

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forerun.runtime.bundle import read_bundle
from forerun.runtime.language import Language, read_language
from forerun.runtime.native_text import NativeText
from forerun.runtime.output import Detokenizer
from forerun.runtime.session import LoadedProgram

pytestmark = pytest.mark.real_model
ROOT = Path(__file__).parents[2]
CORPUS_BYTES = 8 << 20
PIECE_BYTES = 20_000


@pytest.fixture(scope="module")
def bundle(compiled: Callable[..., Path]) -> Path:
    return compiled("keep")


@pytest.fixture(scope="module")
def language(bundle: Path) -> Language:
    return read_language(read_bundle(bundle))


@pytest.fixture(scope="module")
def text(bundle: Path) -> NativeText:
    return NativeText(LoadedProgram(bundle))


def corpus() -> Iterator[str]:
    """The project's own texts, those of installed packages (message catalogues in many languages, licences, code, data
    files), and every assigned range of Unicode."""
    folders = [ROOT, *(Path(folder) for folder in sys.path if folder.endswith("site-packages"))]
    endings = (".md", ".txt", ".rst", ".po", ".json", ".html", ".py", ".csv")
    files = [
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix in endings and "build" not in path.parts and path.is_file()
    ]
    # By ending in turn, so that none of them takes all of the room.
    random.Random(0).shuffle(files)
    left = dict.fromkeys(endings, CORPUS_BYTES // len(endings))
    for path in files:
        if left[path.suffix] > 0:
            found = path.read_bytes()[:PIECE_BYTES].decode("utf-8", "replace")
            left[path.suffix] -= len(found)
            yield found
    for start in (*range(0, 0xD800, 0x400), *range(0xE000, 0x32000, 0x400), *range(0xE0000, 0xE0200, 0x100)):
        block = [chr(point) for point in range(start, start + 0x400)]
        yield "".join(block)
        yield " ".join(block)
        random.Random(start).shuffle(block)
        yield "".join(block)


def test_a_large_corpus_has_the_same_ids(text: NativeText, language: Language) -> None:
    total = 0
    for piece in corpus():
        total += len(piece.encode())
        assert text.encode(piece) == language.tokenizer.encode(piece), repr(piece[:200])
    assert total > 2 << 20


@settings(deadline=None, max_examples=1500)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=60).map(str.encode)))
def test_any_bytes_have_the_same_ids(text: NativeText, language: Language, data: bytes) -> None:
    assert text.encode(data) == language.tokenizer.encode(data.decode("utf-8", "replace"))


@settings(deadline=None, max_examples=500)
@given(ids=st.lists(st.one_of(st.integers(0, 49160), st.integers(0, 300)), max_size=30))
def test_any_ids_have_the_same_text(text: NativeText, language: Language, ids: list[int]) -> None:
    detokenizer, decoder = Detokenizer(language.tokenizer), text.decoder()
    for token_id in ids:
        assert decoder.feed(token_id).text == detokenizer.feed(token_id)
    assert decoder.flush().text == detokenizer.flush()
    assert text.decode(ids) == language.tokenizer.decode(ids)


def test_chat_prompts_are_the_templates(text: NativeText, language: Language) -> None:
    assert language.chat_template is not None and text.has_chat
    generator = random.Random(1)
    contents = ("Hi", " two\n\nlines ", "", "{{ x }}", "é 🙂", "<|im_start|>", "\t", "a" * 300)
    for _ in range(200):
        messages = [
            {"role": generator.choice(("system", "user", "assistant")), "content": generator.choice(contents)}
            for _ in range(generator.randint(1, 6))
        ]
        assert text.chat_prompt(messages) == language.chat_template.render(messages)


def test_special_ids_are_the_bundles(text: NativeText, language: Language, bundle: Path) -> None:
    manifest = read_bundle(bundle)
    assert (text.bos_id, text.end_ids) == (manifest.bos_token_id, manifest.eos_token_ids)
    assert text.add_bos == manifest.add_bos and "text.bin" in manifest.files
    assert text.vocabulary_size == manifest.config["vocabulary_size"]


def test_encoding_takes_time_in_proportion(text: NativeText) -> None:
    """88 kB take some eight milliseconds on one core; ten times as much is allowed to noise."""
    sample = (ROOT / "tests/integration/text.txt").read_text(encoding="utf-8")
    sample = (sample * (88_000 // len(sample) + 1))[:88_000]
    best_ms = min(_measured_ms(text, sample) for _ in range(5))
    print(f"{len(sample.encode())} bytes in {best_ms:.2f} ms")
    assert best_ms < 80


def _measured_ms(text: NativeText, sample: str) -> float:
    started = time.perf_counter()
    text.encode(sample)
    return (time.perf_counter() - started) * 1e3
