"""Text ↔ token ids, by the bundle's own tokenizer.json."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as HuggingFaceTokenizer

from forerun.errors import BundleError


class Tokenizer:
    """A thin face over `tokenizers`: no padding, no truncation, no tokens added on its own account.

    The file is read when it is first needed, as that takes several times as long as opening a bundle, and who works
    with token ids never needs it. Every use raises `BundleError` when the file is missing or no tokenizer.json.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _tokenizer(self) -> HuggingFaceTokenizer:
        try:
            tokenizer = HuggingFaceTokenizer.from_file(str(self._path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{self._path} is not a readable tokenizer.json: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens written out in it, as chat templates do, become their ids."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token(self, token_id: int | None) -> str:
        """The literal text of one token (`<|im_end|>`), "" for None or an unknown id."""
        return "" if token_id is None else self._tokenizer.id_to_token(token_id) or ""
