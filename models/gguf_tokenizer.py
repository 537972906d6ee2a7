"""Building a `tokenizers` tokenizer from the vocabulary and merges that a GGUF file carries.

How each pre-tokenizer name splits text is defined by llama.cpp's llama-vocab.cpp; the expressions below are
its.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from forerun.errors import ModelFileError, UnsupportedModelError
from forerun.models.checkpoint import TokenizerFiles
from forerun.models.tokenizer_files import end_token_ids

_GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTROL, _USER_DEFINED = 3, 4


@dataclass(frozen=True)
class PreTokenizer:
    """How text is cut before merging: expressions applied one after the other."""

    names: tuple[str, ...]
    splits: tuple[str, ...]
    ignore_merges: bool = False
    compose: bool = False
    add_bos: bool = False


PRE_TOKENIZERS = (
    PreTokenizer(("gpt-2", "phi-2", "olmo", "mpt"), (_GPT2_SPLIT,)),
    PreTokenizer(("smollm", "starcoder", "refact"), (r"\p{N}", _GPT2_SPLIT)),
    PreTokenizer(
        ("llama-bpe", "llama3", "llama-v3"),
        (_CASELESS + r"\p{N}{1,3}" + _TAIL,),
        ignore_merges=True,
        add_bos=True,
    ),
    PreTokenizer(("qwen2", "deepseek-r1-qwen"), (_CASELESS + r"\p{N}" + _TAIL,), compose=True),
    PreTokenizer(("default",), (r"[\p{P}\$\+<=>\^~\|]+", _GPT2_SPLIT, r"\p{N}+", r"[0-9][0-9][0-9]")),
)


def read_gguf_tokenizer(values: Mapping[str, Any], path: Path) -> TokenizerFiles:
    """The tokenizer of a GGUF file from its metadata.

    Raises `UnsupportedModelError` naming a tokenizer model or pre-tokenizer that is not known and
    `ModelFileError` when tokens or merges are missing or disagree.
    """
    kind = values.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise UnsupportedModelError(
            f"{path}: tokenizer model {kind!r} is not supported; supported: gpt2 (byte BPE)"
        )
    pre_tokenizer = _find_pre_tokenizer(str(values.get("tokenizer.ggml.pre", "default")), path)
    tokenizer = _build(values, pre_tokenizer, path)
    bos = values.get("tokenizer.ggml.bos_token_id")
    declared = [values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    template = values.get("tokenizer.chat_template")
    return TokenizerFiles(
        tokenizer_json=tokenizer.to_str(),
        chat_template=template if isinstance(template, str) else None,
        bos_token_id=bos,
        eos_token_ids=end_token_ids(tokenizer, declared),
        add_bos=bos is not None and bool(values.get("tokenizer.ggml.add_bos_token", pre_tokenizer.add_bos)),
    )


def _find_pre_tokenizer(name: str, path: Path) -> PreTokenizer:
    known = {alias: entry for entry in PRE_TOKENIZERS for alias in entry.names}
    if name not in known:
        raise UnsupportedModelError(
            f"{path}: pre-tokenizer {name!r} is not supported; supported: {', '.join(sorted(known))}"
        )
    return known[name]


def _build(values: Mapping[str, Any], pre_tokenizer: PreTokenizer, path: Path) -> Tokenizer:
    tokens, merges = values.get("tokenizer.ggml.tokens"), values.get("tokenizer.ggml.merges")
    types = values.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise ModelFileError(f"{path} has no tokenizer.ggml.tokens or no tokenizer.ggml.merges")
    types = types if isinstance(types, list) else [1] * len(tokens)
    if len(types) != len(tokens):
        raise ModelFileError(f"{path} has {len(tokens)} tokens but {len(types)} token types")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        model = models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre_tokenizer.ignore_merges)
    except Exception as error:  # the library raises bare Exception
        raise ModelFileError(f"{path}: tokens and merges do not fit together: {error}") from error
    tokenizer = Tokenizer(model)
    if pre_tokenizer.compose:
        tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in pre_tokenizer.splits]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    # Added in order of id: a token that is already in the vocabulary keeps its id.
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    _require_size(json.loads(tokenizer.to_str()), len(vocabulary), len(tokens), path)
    return tokenizer


def _require_size(written: Mapping[str, Any], distinct: int, listed: int, path: Path) -> None:
    """Ids are positions in the token list; a repeated token would shift what an id means."""
    ids = {token["id"] for token in written["added_tokens"]}
    if distinct != listed or any(index >= listed for index in ids):
        raise ModelFileError(f"{path} lists {listed} tokens, of which only {distinct} differ")
