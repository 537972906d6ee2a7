"""A user's prompts as the token ids that a model reads."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from forerun.models.checkpoint import TokenizerFiles
from forerun.runtime.chat import ChatTemplate


def prompt_ids(files: TokenizerFiles, texts: Sequence[str]) -> list[list[int]]:
    """Each text as a first message in the model's chat template or, where it has none, as it is."""
    tokenizer = Tokenizer.from_str(files.tokenizer_json)
    if files.chat_template is None:
        before = [files.bos_token_id] if files.bos_token_id is not None and files.add_bos else []
        return [before + tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    def token(token_id: int | None) -> str:
        return "" if token_id is None else tokenizer.id_to_token(token_id) or ""

    end = files.eos_token_ids[0] if files.eos_token_ids else None
    special = {"bos_token": token(files.bos_token_id), "eos_token": token(end)}
    template = ChatTemplate(files.chat_template, lambda: special)
    rendered = [template.render([{"role": "user", "content": text}]) for text in texts]
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in rendered]
