"""The vocabulary of a GGUF file: its tokens by id, and what each of them is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from forerun.errors import ModelFileError


class TokenKind(IntEnum):
    """`tokenizer.ggml.token_type`, which llama.cpp took from SentencePiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, each there once, with a `TokenKind` each."""

    tokens: list[str]
    kinds: list[int]
    path: Path

    def bpe(self, merges: Iterable[tuple[str, str]], **options: Any) -> models.BPE:
        """Byte pair encoding with these tokens; raises `ModelFileError` if a merge names others."""
        ids = {token: index for index, token in enumerate(self.tokens)}
        try:
            return models.BPE(vocab=ids, merges=list(merges), **options)
        except Exception as error:  # the library raises bare Exception
            raise ModelFileError(f"{self.path}: tokens and merges do not fit together: {error}") from error

    def add_to(self, tokenizer: Tokenizer) -> None:
        """Have tokens that are no ordinary text found whole; control tokens are not written."""
        special = (TokenKind.CONTROL, TokenKind.UNKNOWN)
        # Added in order of id: a token that is already in the vocabulary keeps its id.
        tokenizer.add_tokens(
            [
                AddedToken(token, special=kind in special, normalized=False)
                for token, kind in zip(self.tokens, self.kinds, strict=True)
                if kind in special or kind == TokenKind.USER_DEFINED
            ]
        )


def read_vocabulary(values: Mapping[str, Any], path: Path) -> Vocabulary:
    """The vocabulary of a file from its metadata; raises `ModelFileError` for one that is missing or garbled."""
    tokens = read_list(values, "tokens", str, path)
    kinds = [int(TokenKind.NORMAL)] * len(tokens)
    if "tokenizer.ggml.token_type" in values:
        kinds = read_list(values, "token_type", int, path)
    if len(kinds) != len(tokens):
        raise ModelFileError(f"{path} has {len(tokens)} tokens but {len(kinds)} token types")
    # Ids are positions in the list; a repeated token would shift what an id means.
    if len(set(tokens)) != len(tokens):
        raise ModelFileError(f"{path} lists {len(tokens)} tokens, of which only {len(set(tokens))} differ")
    return Vocabulary(tokens, kinds, path)


def read_list(values: Mapping[str, Any], name: str, kind: type, path: Path) -> list[Any]:
    """The list `tokenizer.ggml.NAME`; raises `ModelFileError` if there is none or it holds something else."""
    found = values.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list) or not found:
        raise ModelFileError(f"{path} has no tokenizer.ggml.{name}; convert the model again")
    if not all(isinstance(entry, kind) for entry in found):
        raise ModelFileError(f"{path}: tokenizer.ggml.{name} holds something other than {kind.__name__}")
    return found


def read_merges(values: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """The pairs of `tokenizer.ggml.merges`; raises `ModelFileError` for an entry that is no pair."""
    merges = []
    for merge in read_list(values, "merges", str, path):
        # A token may begin with a space, so that the one between the two is sought behind it.
        space = merge.find(" ", 1)
        if space < 0:
            raise ModelFileError(f"{path}: tokenizer.ggml.merges has {merge!r}, which is no pair of tokens")
        merges.append((merge[:space], merge[space + 1 :]))
    return merges
