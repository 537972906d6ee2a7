"""Text ↔ token ids, by the bundle's own tokenizer.json."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as HuggingFaceTokenizer

from forerun.errors import BundleError


class Tokenizer:
    """A thin face over `tokenizers`: no padding, no truncation, no tokens added on its own account."""

    def __init__(self, path: Path) -> None:
        """Read a tokenizer.json; raises `BundleError` when it is missing or not one."""
        try:
            self._tokenizer = HuggingFaceTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{path} is not a readable tokenizer.json: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens written out in it, as chat templates do, become their ids."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token(self, token_id: int | None) -> str:
        """The literal text of one token (`<|im_end|>`), "" for None or an unknown id."""
        return "" if token_id is None else self._tokenizer.id_to_token(token_id) or ""
