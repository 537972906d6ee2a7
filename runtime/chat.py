"""Chat templates: messages → the text that the model was trained to read.

Templates come from model files, so they run in jinja2's immutable sandbox, with the names that Hugging Face
templates expect (`raise_exception`, `strftime_now`, `tojson` without HTML escapes, block trimming).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from forerun.errors import BundleError, OptionError

Message = Mapping[str, Any]


class ChatTemplate:
    """One compiled template. `special_tokens` gives the literal texts that it may write out: `bos_token` and
    `eos_token`; it is called for the first messages."""

    def __init__(self, source: str, special_tokens: Callable[[], Mapping[str, str]] = dict) -> None:
        """Compile `source`; raises `BundleError` when it is not a jinja2 template."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise BundleError(f"the chat template is not valid: {error}") from error
        self._special_tokens = cache(special_tokens)

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The text for `messages` (`role` and `content` each); `OptionError` if the template refuses."""
        check_messages(messages)
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._special_tokens(),
            )
        except (TemplateError, TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise OptionError(f"the chat template refuses these messages: {error}") from error


def check_messages(messages: Sequence[Message]) -> None:
    """Raise `OptionError` unless every message has a text `role` and a `content`."""
    if not messages:
        raise OptionError(
            "the list of messages is empty; give at least one, such as {'role': 'user', 'content': 'Hi'}"
        )
    for index, message in enumerate(messages):
        is_sound = (
            isinstance(message, Mapping) and isinstance(message.get("role"), str) and "content" in message
        )
        if not is_sound:
            raise OptionError(f"message {index} is {message!r}; it must be a dict with 'role' and 'content'")


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
