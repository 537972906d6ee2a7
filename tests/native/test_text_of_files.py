"""Tokenizers of GGUF files through the native core: the ids and texts of the `tokenizers` library."""

from pathlib import Path
from typing import Any

import pytest
from gemma3_file import gemma3_file
from gemma3_template import GEMMA3
from many_texts import many_texts
from small_vocabularies import byte_level, random_texts, sentencepiece
from text_forms import SAMPLE, open_text
from tokenizers import Tokenizer
from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

from forerun.compiler.text import Language
from forerun.compiler.text.chat_pieces import chat_pieces
from forerun.models.gguf_file import parse_gguf
from forerun.models.gguf_tokenizer import read_gguf_tokenizer
from forerun.models.pre_tokenizers import PRE_TOKENIZERS
from forerun.runtime.chat import ChatTemplate
from forerun.runtime.native_text import NativeText

TEXTS = [*SAMPLE, *random_texts(60), "", " ", "  \n\n x", " " * 70]
SENTENCEPIECE: dict[str, dict[str, Any]] = {
    "prefixed": {},
    "bare": {"tokenizer.ggml.add_space_prefix": False},
    "phi3": {"general.architecture": "phi3"},
}
PRE_NAMES = [entry.names[0] for entry in PRE_TOKENIZERS]


def compare(values: dict[str, Any], tiny: Path, folder: Path) -> None:
    """Ids of texts, and texts of ids."""
    written = read_gguf_tokenizer(values, folder).tokenizer_json
    tokenizer, text = Tokenizer.from_str(written), open_text(tiny, folder, written)
    for sample in TEXTS:
        ids = tokenizer.encode(sample, add_special_tokens=False).ids
        assert text.encode(sample) == ids, sample
        assert text.decode(ids) == tokenizer.decode(ids), sample


@pytest.mark.parametrize("name", PRE_NAMES)
def test_pre_tokenizers(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    compare({**byte_level(), "tokenizer.ggml.pre": name}, tiny_bundle, tmp_path)


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_sentencepiece(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    compare({**sentencepiece(), **SENTENCEPIECE[name]}, tiny_bundle, tmp_path)


Gemma = tuple[Tokenizer, NativeText, bytes]


@pytest.fixture(scope="module")
def gemma3(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Gemma:
    """Gemma 3's tokenizer of 262,144 tokens, and the same through the core, with its chat template."""
    path = gemma3_file()
    files = read_gguf_tokenizer(parse_gguf(path).values, path)
    special = {"bos_token": "<bos>", "eos_token": "<eos>"}
    chat = chat_pieces(GEMMA3, ChatTemplate(GEMMA3, lambda: special))
    language = Language(files.bos_token_id, files.eos_token_ids, files.add_bos, chat)
    folder = tmp_path_factory.mktemp("gemma3")
    text = open_text(tiny_bundle, folder, files.tokenizer_json, language)
    return Tokenizer.from_str(files.tokenizer_json), text, (folder / "text.bin").read_bytes()


@pytest.mark.real_model
def test_gemma3_equals_transformers(gemma3: Gemma) -> None:
    reference = convert_gguf_tokenizer(*get_gguf_tokenizer(str(gemma3_file()))[:2])[0]
    runs = (character * count + "x" for count in range(40) for character in " \n\t")
    for sample in [*TEXTS, *runs, "\t\t\n\n\n <h1>a</h1> <eos><start_of_turn>", *many_texts()[::2]]:
        ids = reference.encode(sample, add_special_tokens=False).ids
        assert gemma3[0].encode(sample, add_special_tokens=False).ids == ids, repr(sample[:200])
        assert gemma3[0].decode(ids) == reference.decode(ids), repr(sample[:200])


@pytest.mark.real_model
def test_gemma3_has_the_same_ids_and_texts(gemma3: Gemma) -> None:
    tokenizer, text, _ = gemma3
    total = 0
    for sample in [*TEXTS, *many_texts()]:
        total += len(sample.encode())
        ids = tokenizer.encode(sample, add_special_tokens=False).ids
        assert text.encode(sample) == ids, repr(sample[:200])
        assert text.decode(ids) == tokenizer.decode(ids), repr(sample[:200])
    assert total > 1 << 19


@pytest.mark.real_model
def test_gemma3s_text_is_small(gemma3: Gemma) -> None:
    """A tokenizer.json of 12 MB; what the core maps is as large."""
    _, text, data = gemma3
    assert text.vocabulary_size == 262144 and len(data) < 16 << 20
    assert (text.bos_id, text.end_ids, text.add_bos) == (2, (1, 106), True)


@pytest.mark.real_model
def test_gemma3s_chat_prompts_are_the_templates(gemma3: Gemma) -> None:
    text = gemma3[1]
    template = ChatTemplate(GEMMA3, lambda: {"bos_token": "<bos>", "eos_token": "<eos>"})
    turns = [("system", " Be brief. "), ("user", " Hi\n"), ("assistant", "Ho "), ("user", "x")]
    for part in (turns, turns[1:], turns[:2]):
        messages = [{"role": role, "content": content} for role, content in part]
        assert text.chat_prompt(messages) == template.render(messages)
    assert text.encode(text.chat_prompt([{"role": "user", "content": "Hi"}]))[:2] == [2, 105]
