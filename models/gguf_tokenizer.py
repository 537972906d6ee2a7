"""Building a `tokenizers` tokenizer from the vocabulary that a GGUF file carries."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from forerun.errors import UnsupportedModelError
from forerun.models.checkpoint import TokenizerFiles
from forerun.models.gguf_sentencepiece import sentencepiece_tokenizer
from forerun.models.gguf_vocabulary import Vocabulary, read_merges, read_vocabulary
from forerun.models.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from forerun.models.tokenizer_files import end_token_ids

Builder = Callable[[Mapping[str, Any], Vocabulary], Tokenizer]


def read_gguf_tokenizer(values: Mapping[str, Any], path: Path) -> TokenizerFiles:
    """The tokenizer of a GGUF file from its metadata.

    Raises `UnsupportedModelError` naming a tokenizer model or pre-tokenizer that is not known and
    `ModelFileError` when tokens, merges or scores are missing or disagree.
    """
    kind = str(values.get("tokenizer.ggml.model"))
    if kind not in BUILDERS:
        raise UnsupportedModelError(
            f"{path}: tokenizer model {kind!r} is not supported; supported: {', '.join(BUILDERS)}"
        )
    adds_bos = kind == "llama" or find_pre_tokenizer(values, path).add_bos
    tokenizer = BUILDERS[kind](values, read_vocabulary(values, path))
    bos = values.get("tokenizer.ggml.bos_token_id")
    declared = [values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    template = values.get("tokenizer.chat_template")
    return TokenizerFiles(
        tokenizer_json=tokenizer.to_str(),
        chat_template=template if isinstance(template, str) else None,
        bos_token_id=bos,
        eos_token_ids=end_token_ids(tokenizer, declared),
        add_bos=bos is not None and bool(values.get("tokenizer.ggml.add_bos_token", adds_bos)),
    )


def find_pre_tokenizer(values: Mapping[str, Any], path: Path) -> PreTokenizer:
    """What `tokenizer.ggml.pre` names; raises `UnsupportedModelError` listing the known names."""
    name = str(values.get("tokenizer.ggml.pre", "default"))
    known = {alias: entry for entry in PRE_TOKENIZERS for alias in entry.names}
    if name not in known:
        raise UnsupportedModelError(
            f"{path}: pre-tokenizer {name!r} is not supported; supported: {', '.join(sorted(known))}"
        )
    return known[name]


def byte_level_tokenizer(values: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
    """Byte pair encoding over bytes, as GPT-2 has it, with the file's merges."""
    pre_tokenizer = find_pre_tokenizer(values, vocabulary.path)
    merges = read_merges(values, vocabulary.path)
    tokenizer = Tokenizer(vocabulary.bpe(merges, ignore_merges=pre_tokenizer.ignore_merges))
    if pre_tokenizer.compose:
        tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in pre_tokenizer.splits]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    vocabulary.add_to(tokenizer)
    return tokenizer


# By `tokenizer.ggml.model`.
BUILDERS: Mapping[str, Builder] = {"gpt2": byte_level_tokenizer, "llama": sentencepiece_tokenizer}
