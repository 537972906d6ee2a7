"""The tokenizer built from a GGUF file against transformers and against llama.cpp."""

from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from forerun.models import Checkpoint
from forerun.models.gguf_file import parse_gguf
from forerun.models.gguf_tokenizer import read_gguf_tokenizer
from forerun.models.pre_tokenizers import PRE_TOKENIZERS

pytestmark = pytest.mark.real_model

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
NAMES = [name for entry in PRE_TOKENIZERS for name in entry.names]


@pytest.fixture(scope="module")
def metadata(smollm2_checkpoint: Checkpoint) -> dict[str, Any]:
    values = parse_gguf(smollm2_checkpoint.source).values
    return {key: value for key, value in values.items() if key.startswith("tokenizer.")}


def test_smollm2_equals_transformers(smollm2_checkpoint: Checkpoint) -> None:
    path = smollm2_checkpoint.source
    reference = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ours = Tokenizer.from_str(smollm2_checkpoint.read_tokenizer().tokenizer_json)
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids, skip_special_tokens=False) == text
        # transformers ignores the pre-tokenizer's name and merges digits that are not ASCII; llama.cpp does
        # not.
        if text != OTHER_DIGITS:
            assert ids == reference(text, add_special_tokens=False).input_ids, text


def test_smollm2_ends_at_the_turn_and_at_the_text(smollm2_checkpoint: Checkpoint) -> None:
    files = smollm2_checkpoint.read_tokenizer()
    assert files.eos_token_ids == (0, 2)
    assert files.bos_token_id == 1
    assert not files.add_bos


@pytest.mark.parametrize("name", NAMES)
def test_pre_tokenizers_equal_llama_cpp(name: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    values = {**metadata, "tokenizer.ggml.pre": name}
    path = tmp_path / "vocabulary.gguf"
    write_vocabulary(path, values)
    reference = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    ours = Tokenizer.from_str(read_gguf_tokenizer(values, path).tokenizer_json)
    for text in TEXTS:
        expected = reference.tokenize(text.encode(), add_bos=False, special=True)
        assert ours.encode(text, add_special_tokens=False).ids == expected, text


def test_qwen2_composes_unicode_as_its_own_tokenizer_does(metadata: dict[str, Any], tmp_path: Path) -> None:
    files = read_gguf_tokenizer({**metadata, "tokenizer.ggml.pre": "qwen2"}, tmp_path)
    ours = Tokenizer.from_str(files.tokenizer_json)
    assert ours.encode("e\u0301").ids == ours.encode("\u00e9").ids


def write_vocabulary(path: Path, values: dict[str, Any]) -> None:
    """A GGUF file without weights."""
    writer = gguf.GGUFWriter(path, "llama")
    for key in (
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
    ):
        writer.add_uint32(f"llama.{key}", 64)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
