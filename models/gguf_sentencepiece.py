"""Tokenizers of GGUF files with SentencePiece vocabularies (`tokenizer.ggml.model` llama), as transformers builds them.

SentencePiece merges the two neighbours whose joint piece has the best score. Files list no merges, so every way of
putting a piece together from two others becomes one, by falling score.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

from forerun.errors import ModelFileError
from forerun.models.gguf_vocabulary import TokenKind, Vocabulary, read_list, read_merges

_SPACE = "▁"
# Architectures whose own tokenizer puts a space before every text, also before one that begins with a space.
_ALWAYS_PREFIXED = ("phi3",)
_NO_TEXT = (TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.BYTE)


def sentencepiece_tokenizer(values: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
    """Byte pair encoding over characters: spaces are written as ▁, characters without a token as their bytes.

    Raises `ModelFileError` for scores or merges that do not fit the tokens.
    """
    runs = _space_runs(vocabulary)
    vocabulary = _marked(vocabulary, runs)
    listed = "tokenizer.ggml.merges" in values
    merges = read_merges(values, vocabulary.path) if listed else _merges_by_score(values, vocabulary, runs)
    unknown = values.get("tokenizer.ggml.unknown_token_id")
    named = vocabulary.tokens[unknown : unknown + 1] if isinstance(unknown, int) else []
    model = vocabulary.bpe(merges, unk_token=next(iter(named), None), fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    prefixed = bool(values.get("tokenizer.ggml.add_space_prefix", True))
    if values.get("general.architecture") in _ALWAYS_PREFIXED:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
        )
    else:
        scheme = "first" if prefixed else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=False)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    vocabulary.add_to(tokenizer)
    return tokenizer


def _space_runs(vocabulary: Vocabulary) -> frozenset[str]:
    """Runs of spaces that were defined beside what was learned, with ▁, which is what they are merged from."""
    pairs = zip(vocabulary.tokens, vocabulary.kinds, strict=True)
    return frozenset(
        _SPACE * len(token)
        for token, kind in pairs
        if kind == TokenKind.USER_DEFINED and len(token) > 1 and set(token) == {" "}
    )


def _marked(vocabulary: Vocabulary, runs: frozenset[str]) -> Vocabulary:
    """The vocabulary with its runs of spaces as ordinary tokens of ▁; files have them as they are written."""
    marked = [token.replace(" ", _SPACE) for token in vocabulary.tokens]
    pairs = list(zip(vocabulary.tokens, marked, vocabulary.kinds, strict=True))
    tokens = [mark if mark in runs else token for token, mark, _ in pairs]
    if len(set(tokens)) != len(tokens):
        raise ModelFileError(f"{vocabulary.path} lists a run of spaces and the same run of {_SPACE}")
    kinds = [int(TokenKind.NORMAL) if mark in runs else kind for _, mark, kind in pairs]
    return replace(vocabulary, tokens=tokens, kinds=kinds)


def _merges_by_score(
    values: Mapping[str, Any], vocabulary: Vocabulary, runs: frozenset[str]
) -> list[tuple[str, str]]:
    """Merges in the order in which SentencePiece prefers their results, runs of spaces before all others.

    Of equal results, those of longer left parts come first, as in transformers' generate_merges.
    """
    scores = read_list(values, "scores", float, vocabulary.path)
    if len(scores) != len(vocabulary.tokens):
        raise ModelFileError(
            f"{vocabulary.path} has {len(vocabulary.tokens)} tokens but {len(scores)} scores"
        )
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    found = []
    for index, (token, kind, score) in enumerate(
        zip(vocabulary.tokens, vocabulary.kinds, scores, strict=True)
    ):
        if kind in _NO_TEXT:
            continue
        preference = (0, float(index)) if token in runs else (1, -score)
        cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        pairs = [(left, right) for left, right in cuts if left in ids and right in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [((*preference, -len(left), -len(right)), left, right) for left, right in pairs]
    found.sort(key=lambda merge: merge[0])
    return [(left, right) for _, left, right in found]
