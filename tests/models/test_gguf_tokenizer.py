"""Tokenizers built from GGUF files against transformers and against llama.cpp, on texts of many scripts."""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from many_texts import many_texts
from small_vocabularies import byte_level, random_texts, sentencepiece, write_vocabulary
from text_forms import SAMPLE
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import generate_merges

from forerun.errors import ModelFileError, UnsupportedModelError
from forerun.models import Checkpoint
from forerun.models.gguf_file import parse_gguf
from forerun.models.gguf_tokenizer import BUILDERS, read_gguf_tokenizer
from forerun.models.pre_tokenizers import PRE_TOKENIZERS

OTHER_DIGITS = "½ ² ٣٤٥ १२३ Ⅷ  \u00a0nbsp\u3000wide"
TEXTS = (
    "Hello, world! It's 12345.678 items — we'll see: I'M HERE, don't Don'T 's 'S 'RE",
    "def f(x):\n\treturn x**2  # naïve\n\n\n    y = [1,2,3]\r\n",
    "日本語のテキスト 🎉👩‍👩‍👧 ñandú éclair",
    "   leading and trailing   ",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "a_b-c/d\\e {x: 'y'} <=> ^~|$ 3+4=7",
    OTHER_DIGITS,
    "\n\n \n\t\t x",
    "1 12 123 1234 12345 123456",
)
RANDOM = random_texts(150)
PRE = "tokenizer.ggml.pre"
# There llama.cpp only comes near the model's own expression, which tells capitals and marks from other letters.
NEAR_IN_LLAMA_CPP = ("youtu", "tekken", "gpt-4o")
# Those whose expressions transformers has, too.
IN_TRANSFORMERS = ("llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "gpt-2")
SENTENCEPIECE = {"llama": {}, "phi3": {}, "gemma3": {"tokenizer.ggml.add_space_prefix": False}}


def ours(values: Mapping[str, Any], path: Path = Path("model.gguf")) -> Tokenizer:
    return Tokenizer.from_str(read_gguf_tokenizer(values, path).tokenizer_json)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def require_transformers_ids(
    path: Path, tokenizer: Tokenizer, texts: list[str], cut: PreTokenizer | None = None
) -> None:
    """`cut` takes the place of the pre-tokenizer where transformers does not build the model's own."""
    reference = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if cut is not None:
        reference.backend_tokenizer.pre_tokenizer = cut
    for text in texts:
        ids = ids_of(tokenizer, text)
        assert ids == reference(text, add_special_tokens=False).input_ids, text
        assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=True), text


def require_llama_cpp_ids(path: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python for its tokenizer")
    reference = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in texts:
        expected = reference.tokenize(text.encode(), add_bos=False, special=True)
        assert ids_of(tokenizer, text) == expected, text


@pytest.mark.real_model
def test_smollm2_equals_transformers(smollm2_checkpoint: Checkpoint) -> None:
    tokenizer = Tokenizer.from_str(smollm2_checkpoint.read_tokenizer().tokenizer_json)
    # As in SmolLM2's tokenizer.json; reading its GGUF file, transformers does not look at the pre-tokenizer's name.
    digits = pre_tokenizers.Digits(individual_digits=True)
    cut = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    texts = [*TEXTS, *SAMPLE, *many_texts()[::6]]
    require_transformers_ids(smollm2_checkpoint.source, tokenizer, texts, cut)
    assert all(tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=False) == text for text in TEXTS)


@pytest.mark.real_model
def test_smollm2_ends_at_the_turn_and_at_the_text(smollm2_checkpoint: Checkpoint) -> None:
    files = smollm2_checkpoint.read_tokenizer()
    assert files.eos_token_ids == (2, 0)
    assert files.bos_token_id == 1
    assert not files.add_bos


@pytest.mark.parametrize("name", [entry.names[0] for entry in PRE_TOKENIZERS])
def test_pre_tokenizers_equal_llama_cpp(name: str, tmp_path: Path) -> None:
    if name in NEAR_IN_LLAMA_CPP:
        pytest.skip("llama.cpp only comes near the model's own expression")
    values = {**byte_level(), PRE: name}
    path = write_vocabulary(tmp_path / "vocabulary.gguf", values)
    texts = [*TEXTS, *SAMPLE, *RANDOM]
    if "qwen2" in name or "qwen35" in name:  # whose models compose; llama.cpp does not
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    require_llama_cpp_ids(path, ours(values), texts)


@pytest.mark.parametrize("name", IN_TRANSFORMERS)
def test_byte_level_tokenizers_equal_transformers(name: str, tmp_path: Path) -> None:
    values = {**byte_level(), PRE: name}
    path = write_vocabulary(tmp_path / "vocabulary.gguf", values)
    texts = [unicodedata.normalize("NFC", text) for text in (*TEXTS, *SAMPLE, *RANDOM)]
    require_transformers_ids(path, ours(values), texts)


def test_every_name_of_a_pre_tokenizer_is_there_once() -> None:
    names = [name for entry in PRE_TOKENIZERS for name in entry.names]
    assert len(names) == len(set(names)) > 60


def test_qwen2_composes_unicode_as_its_own_tokenizer_does() -> None:
    tokenizer = ours({**byte_level(), PRE: "qwen2"})
    assert ids_of(tokenizer, "e\u0301") == ids_of(tokenizer, "\u00e9")


@pytest.mark.parametrize("architecture", SENTENCEPIECE)
def test_sentencepiece_equals_transformers(architecture: str, tmp_path: Path) -> None:
    values = {**sentencepiece(), **SENTENCEPIECE[architecture]}
    path = write_vocabulary(tmp_path / "vocabulary.gguf", values, architecture)
    tokenizer = ours({**values, "general.architecture": architecture})
    texts = [*TEXTS, *SAMPLE, *RANDOM]
    if (
        architecture != "gemma3"
    ):  # there, transformers merges runs of spaces; elsewhere it looks for them as written
        texts = [text for text in texts if "  " not in f" {text}" and "▁" not in text]
    require_transformers_ids(path, tokenizer, texts)


def test_merges_come_in_transformers_order() -> None:
    values = sentencepiece()
    tokens, scores = (values[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores"))
    ids = {token: index for index, token in enumerate(tokens)}
    first_learned = tokens.index("<0xFF>") + 1
    expected = [
        merge
        for merge in generate_merges(ids, dict(zip(tokens, scores, strict=True)))
        if ids["".join(merge)] >= first_learned
    ]
    written = json.loads(ours(values).to_str())["model"]["merges"]
    found = [tuple(merge) for merge in written if set("".join(merge)) != {"▁"}]
    assert found == expected and len(expected) > 500


def test_sentencepiece_equals_llama_cpp(tmp_path: Path) -> None:
    values = {**sentencepiece(), "tokenizer.ggml.add_space_prefix": False}
    path = write_vocabulary(tmp_path / "vocabulary.gguf", values)
    # llama.cpp reads <s> in a text too, and ▁ as a space.
    require_llama_cpp_ids(
        path, ours(values), [text for text in (*TEXTS, *SAMPLE, *RANDOM) if "▁" not in text]
    )


@pytest.mark.parametrize(("kind", "adds"), [("llama", True), ("gpt2", False)])
def test_a_prompt_begins_with_bos_unless_the_file_says_otherwise(kind: str, adds: bool) -> None:
    values = changed(sentencepiece() if kind == "llama" else byte_level())
    assert read_gguf_tokenizer(values, Path("a")).add_bos == adds
    assert read_gguf_tokenizer(changed(values, add_bos_token=not adds), Path("a")).add_bos != adds
    nothing = changed(values, add_bos_token=True, bos_token_id=None)
    assert not read_gguf_tokenizer(nothing, Path("a")).add_bos


def test_answers_end_at_the_end_of_a_turn() -> None:
    values = sentencepiece()
    tokens = [{"<|im_end|>": "<end_of_turn>"}.get(token, token) for token in values["tokenizer.ggml.tokens"]]
    files = read_gguf_tokenizer({**values, "tokenizer.ggml.tokens": tokens}, Path("a"))
    assert files.eos_token_ids == (2, tokens.index("<|endoftext|>"), tokens.index("<end_of_turn>"))
    told = {**values, "tokenizer.ggml.eot_token_id": 7}
    assert 7 in read_gguf_tokenizer(told, Path("a")).eos_token_ids


def changed(values: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The values with changes; None takes one away."""
    merged = {**values, PRE: "gpt-2", **{f"tokenizer.ggml.{name}": value for name, value in changes.items()}}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (changed(byte_level(), model="t5"), UnsupportedModelError, "tokenizer model 't5'.*: gpt2, llama"),
        (changed(byte_level(), model=None), UnsupportedModelError, "tokenizer model 'None'"),
        (changed(byte_level(), pre="klingon"), UnsupportedModelError, "pre-tokenizer 'klingon'.*tekken"),
        (changed(byte_level(), tokens=None), ModelFileError, "no tokenizer.ggml.tokens"),
        (changed(byte_level(), merges=None), ModelFileError, "no tokenizer.ggml.merges"),
        (changed(byte_level(), merges=["a"]), ModelFileError, "has 'a', which is no pair"),
        (changed(byte_level(), merges=["a qqq"]), ModelFileError, "do not fit together"),
        (changed(byte_level(), token_type=[1]), ModelFileError, "tokens but 1 token types"),
        (
            changed(byte_level(), tokens=["a", "a"], token_type=None),
            ModelFileError,
            "2 tokens, of which only 1 differ",
        ),
        (changed(byte_level(), tokens=[1, 2]), ModelFileError, "tokens holds something other than str"),
        (changed(sentencepiece(), scores=None), ModelFileError, "no tokenizer.ggml.scores"),
        (changed(sentencepiece(), scores=[1.0]), ModelFileError, "tokens but 1 scores"),
    ],
)
def test_tokenizers_that_are_not_read(values: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        read_gguf_tokenizer(values, Path("model.gguf"))
    assert "model.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_the_reader_of_large_vocabularies_reads_what_the_library_reads(tmp_path: Path) -> None:
    import gguf

    values = {**sentencepiece(), "general.tags": ["a", "é"], "general.numbers": [1, 2], "general.yes": [True]}
    path = write_vocabulary(tmp_path / "vocabulary.gguf", values)
    fields = gguf.GGUFReader(path).fields
    found = parse_gguf(path).values
    assert found == {name: field.contents() for name, field in fields.items()}
    data = path.read_bytes()
    for size in range(len(data) - 200, len(data) - 40, 23):
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match="truncated or malformed"):
            parse_gguf(path)


def test_arrays_that_say_to_be_endless_are_refused(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "vocabulary.gguf", sentencepiece())
    data = path.read_bytes()
    for name in (b"tokenizer.ggml.tokens", b"tokenizer.ggml.scores"):
        count = data.index(name) + len(name) + 8  # behind the kinds of the value and of its elements
        path.write_bytes(data[:count] + (1 << 45).to_bytes(8, "little") + data[count + 8 :])
        with pytest.raises(ModelFileError, match="truncated or malformed"):
            parse_gguf(path)


def test_kinds_of_tokenizers() -> None:
    assert set(BUILDERS) == {"gpt2", "llama"}
