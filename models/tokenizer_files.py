"""Tokenizer helpers that both file formats share."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from forerun.errors import ModelFileError

# Tokens that end a turn or a text whatever the file declares; chat models are asked to stop at any of them.
END_TOKENS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "</s>"),
    *("<end_of_turn>", "<eos>", "<end_of_utterance>", "<EOT>", "[EOS]", "<｜end▁of▁sentence｜>"),
)


def load_tokenizer_json(text: str, source: Path) -> Tokenizer:
    """Parse a tokenizer.json; raises `ModelFileError` naming `source`."""
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise ModelFileError(
            f"{source} is not a tokenizer that can be read{_model_of(text)}: {error}"
        ) from error


def _model_of(text: str) -> str:
    """The kind of a tokenizer.json's model, "" where it says none."""
    try:
        return f" (its model is {json.loads(text)['model']['type']!r})"
    except (ValueError, KeyError, TypeError):
        return ""


def end_token_ids(tokenizer: Tokenizer, declared: Iterable[Any]) -> tuple[int, ...]:
    """Ids that end an answer: those declared (int, list or None each), then `END_TOKENS` that are special.

    Without duplicates, in that order: what is declared first is what chat templates call `eos_token`. A name counts
    only as a special token, so that a vocabulary in which "</s>" is ordinary text is not cut there.
    """
    entries = [value for entry in declared for value in (entry if isinstance(entry, list) else [entry])]
    ids = [value for value in entries if isinstance(value, int)]
    special = {
        token.content: index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
    }
    return tuple(dict.fromkeys([*ids, *(special[name] for name in END_TOKENS if name in special)]))
