"""GGUF files that hold a tokenizer and no weights, with vocabularies trained on a little text of many scripts."""

import json
import random
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import gguf
from text_forms import SAMPLE
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

SIZE = 1200
SCRIPTS = (
    *((0x20, 0x24F), (0x300, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0xE7F), (0x1E00, 0x20FF)),
    *((0x3000, 0x31FF), (0x4E00, 0x4EFF), (0xAC00, 0xACFF), (0xFF00, 0xFFEF), (0x1F600, 0x1F64F)),
)
CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
RUNS = tuple(" " * count for count in range(2, 32))  # all that Gemma has


@cache
def byte_level() -> dict[str, Any]:
    """Metadata of a GPT-2 tokenizer without a pre-tokenizer's name."""
    tokenizer = Tokenizer(models.BPE())
    # Uncut, so that tokens cross every border that a pre-tokenizer may draw: ids then tell where it cuts.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=alphabet, show_progress=False)
    pieces = [text[start : start + 30] for text in SAMPLE for start in range(0, len(text), 30)]
    tokenizer.train_from_iterator(pieces, trainer)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    merges = _merges(tokenizer)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*tokens, *CONTROL, "<tool>"],
        "tokenizer.ggml.token_type": [*(1 for _ in tokens), 3, 3, 3, 4],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.bos_token_id": len(tokens),
        "tokenizer.ggml.eos_token_id": len(tokens) + 1,
    }


@cache
def sentencepiece() -> dict[str, Any]:
    """Metadata of a Llama tokenizer: bytes, learned pieces with falling scores, then characters."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    first = ["<unk>", "<s>", "</s>", *CONTROL, "<tool>", *RUNS, *bytes_]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, show_progress=False)
    trained.train_from_iterator([*SAMPLE[:2], "é 日本 " * 9], trainer)
    pieces = ["".join(merge) for merge in _merges(trained)]
    learned = [piece for piece in dict.fromkeys(pieces) if set(piece) != {"▁"}]
    characters = sorted(token for token in trained.get_vocab() if len(token) == 1)
    tokens = [*first, *learned, *characters]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3, 3, 3, 3, 4, *(4 for _ in RUNS), *(6 for _ in bytes_)]
        + [1] * (len(tokens) - len(first)),
        "tokenizer.ggml.scores": [-1000.0] * len(first)
        + [-float(rank) for rank in range(len(tokens) - len(first))],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Characters of many scripts among letters, spaces and digits, composed (NFC)."""
    generator = random.Random(seed)

    def character() -> str:
        return generator.choice(
            (chr(generator.randint(*generator.choice(SCRIPTS))), generator.choice(" aB1'\n,▁"))
        )

    texts = ("".join(character() for _ in range(generator.randrange(50))) for _ in range(count))
    return [unicodedata.normalize("NFC", text) for text in texts]


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def write_vocabulary(path: Path, values: dict[str, Any], architecture: str = "llama") -> Path:
    """A GGUF file without weights."""
    writer = gguf.GGUFWriter(path, architecture)
    for key in (
        *("block_count", "context_length", "embedding_length", "feed_forward_length"),
        "attention.head_count",
    ):
        writer.add_uint32(f"{architecture}.{key}", 64)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
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
    return path
