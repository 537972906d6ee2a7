"""How a model reads and writes text: tokenizer, chat template, special tokens, all from the bundle."""

from dataclasses import dataclass

from forerun.errors import BundleError
from forerun.runtime.bundle import Bundle
from forerun.runtime.chat import ChatTemplate
from forerun.runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class Language:
    """`bos_token_id` is put before raw prompts unless None; any of `end_token_ids` ends an answer."""

    tokenizer: Tokenizer
    chat_template: ChatTemplate | None = None
    bos_token_id: int | None = None
    end_token_ids: frozenset[int] = frozenset()


def read_language(bundle: Bundle) -> Language:
    """Read the chat template, find the tokenizer; raises `BundleError` for a template missing or broken."""
    tokenizer = Tokenizer(bundle.tokenizer_path)
    end_token_id = bundle.eos_token_ids[0] if bundle.eos_token_ids else None

    def special_tokens() -> dict[str, str]:
        return {
            "bos_token": tokenizer.token(bundle.bos_token_id),
            "eos_token": tokenizer.token(end_token_id),
        }

    template = None
    if bundle.chat_template_path is not None:
        try:
            source = bundle.chat_template_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{bundle.chat_template_path} cannot be read: {error}") from error
        template = ChatTemplate(source, special_tokens)
    return Language(
        tokenizer,
        template,
        bundle.bos_token_id if bundle.add_bos else None,
        frozenset(bundle.eos_token_ids),
    )
