"""A scripted model with a real tokenizer: one token per byte, two special tokens, a chat template."""

from pathlib import Path
from typing import Any

from scripted import ScriptedConfig, ScriptedSession
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers

from forerun.runtime.chat import ChatTemplate
from forerun.runtime.language import Language
from forerun.runtime.model import Model
from forerun.runtime.tokenizer import Tokenizer

START, END = "<|start|>", "<|end|>"
END_ID = 257
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def write_tokenizer(folder: Path) -> Path:
    """A byte-level tokenizer.json: ids 0 … 255 are bytes in the alphabet's order, 256 and 257 are special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = HuggingFaceTokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START, END])
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def byte_model(
    folder: Path, *, template: bool = True, ends: bool = True, sequences: int = 1, **session_options: Any
) -> Model:
    """A `Model` over scripted sessions; `session_options` go to `ScriptedSession`. Without `ends` nothing but
    the token limit ends an answer.
    """
    tokenizer = Tokenizer(write_tokenizer(folder))
    language = Language(
        tokenizer,
        ChatTemplate(TEMPLATE, lambda: {"eos_token": END}) if template else None,
        end_token_ids=frozenset({END_ID} if ends else ()),
    )
    config = ScriptedConfig(vocabulary_size=258)
    return Model(
        "scripted",
        language,
        lambda threads: ScriptedSession(config, threads=threads, sequences=sequences, **session_options),
        sequences=sequences,
    )
