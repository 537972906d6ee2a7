"""Chat templates in the manner of Hugging Face, in a sandbox."""

import pytest

from forerun.errors import BundleError, OptionError
from forerun.runtime.chat import ChatTemplate

HELLO = [{"role": "user", "content": "Hello"}]


def test_a_template_renders_messages_and_tokens() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'user' %}\n[{{ m.content }}]\n"
        "    {% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}>{% endif %}",
        lambda: {"bos_token": "<s>"},
    )
    assert template.render(HELLO) == "<s>[Hello]\n>"
    assert template.render(HELLO, add_generation_prompt=False) == "<s>[Hello]\n"


def test_tojson_writes_plain_json() -> None:
    assert ChatTemplate("{{ messages | tojson }}").render([{"role": "user", "content": "<é>'"}]) == (
        '[{"role": "user", "content": "<é>\'"}]'
    )


def test_templates_may_break_loops_and_ask_for_the_date() -> None:
    template = ChatTemplate("{% for m in messages %}{{ strftime_now('%Y') | length }}{% break %}{% endfor %}")
    assert template.render(HELLO * 2) == "4"


def test_a_template_can_refuse_messages() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(OptionError, match="roles must alternate"):
        template.render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{% set x = messages.append(1) %}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(source: str) -> None:
    with pytest.raises(OptionError, match="refuses"):
        print(ChatTemplate(source).render(HELLO))


def test_a_broken_template_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="chat template"):
        ChatTemplate("{% for %}")


@pytest.mark.parametrize(
    "messages", [[], [{"role": "user"}], [{"content": "x"}], ["x"], [{"role": 1, "content": ""}]]
)
def test_malformed_messages_are_refused(messages: list[object]) -> None:
    with pytest.raises(OptionError):
        ChatTemplate("").render(messages)  # type: ignore[arg-type]
