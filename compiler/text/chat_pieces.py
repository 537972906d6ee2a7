"""A chat template as the few texts that it puts around messages, so that C can write prompts without jinja.

The pieces are read off conversations whose contents can be found again, then compared with the template on many
others. A template that they do not describe is refused with the reason.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from jinja2 import Environment, TemplateError, nodes

from forerun.errors import CompileError, OptionError
from forerun.runtime.chat import ChatTemplate

ROLES = ("system", "user", "assistant")
STRIPS = (0, 1, 2, 3)  # nothing, the left side, the right side, both
_STRICT = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)
_FREE = (*_STRICT, *((role,) for role in ROLES), *product(ROLES, ROLES))
_TRIALS = 60
_LONGEST = 7  # messages of a conversation that is tried
_MOST_REFUSED = 32  # texts of one role
_CONTENTS = (
    *("Hello", "Why is the sky blue?", "", "  two\n\nlines ", "\n", "\ttab", "no\u00a0break\u3000", "a  b"),
    *(
        "{{ x }} {% if %}",
        '<b>&amp;"quotes"\'</b>',
        "日本語 🙂 e\u0301",
        "1. one\n2. two\n",
        "\\n \\",
        "[INST] <s>",
    ),
)


@dataclass(frozen=True)
class ChatPieces:
    """What a template writes: `joints` between a message of one role ("": at the beginning) and the next, `ends` after
    the last message with the beginning of the answer. A joint that is missing is an order that is not allowed.
    `strips` says which white space messages lose, `refused` what a message must not hold, since the template would
    treat it specially.
    """

    joints: Mapping[tuple[str, str], str]
    ends: Mapping[str, str]
    strips: Mapping[str, int]
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def prompt(self, messages: Sequence[tuple[str, str]]) -> str:
        """The text for (role, content) pairs; the definition of the core's `forerun_chat_prompt`."""
        before, text = "", ""
        for role, content in messages:
            strips = self.strips[role]
            kept = content.lstrip() if strips & 1 else content
            text += self.joints[before, role] + (kept.rstrip() if strips & 2 else kept)
            before = role
        return text + self.ends[before]


def chat_pieces(source: str, template: ChatTemplate) -> ChatPieces:
    """The pieces of a template, whose source it was made of; `CompileError` says why there are none."""
    names = {node.name for node in _parsed(source).find_all(nodes.Name)}
    if "strftime_now" in names:
        raise CompileError("the chat template writes the date, which pieces cannot")
    reason = ""
    # Any order of roles if that can be described, else questions and answers in turn.
    for conversations in (_FREE, _STRICT):
        try:
            return _refusals(source, template, _verified(template, _derived(template, conversations)))
        except CompileError as error:
            reason = str(error)
    raise CompileError(reason)


def _parsed(source: str) -> nodes.Template:
    try:
        return Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
    except TemplateError as error:
        raise CompileError(f"the chat template is not valid: {error}") from error


def _rendered(template: ChatTemplate, messages: Sequence[tuple[str, str]]) -> str | None:
    """None for a conversation that the template does not allow."""
    try:
        return template.render([{"role": role, "content": content} for role, content in messages])
    except OptionError:
        return None


def _derived(template: ChatTemplate, conversations: Sequence[Sequence[str]]) -> ChatPieces:
    """Pieces read off conversations by their roles; of white space, what the first one of a role tells."""
    joints: dict[tuple[str, str], str] = {}
    ends: dict[str, str] = {}
    allowed = []
    for roles in conversations:
        contents = [f"Qx{place}Jv{place}Zq" for place in range(len(roles))]
        text = _rendered(template, list(zip(roles, contents, strict=True)))
        if text is None:
            continue
        allowed.append(roles)
        texts = _between(text, contents)
        steps = list(zip(("", *roles), roles, strict=False))
        for joint, piece in zip(steps, texts, strict=False):
            _agree(joints.setdefault(joint, piece), piece, roles)
        _agree(ends.setdefault(roles[-1], texts[-1]), texts[-1], roles)
    if ("", "user") not in joints or "user" not in ends:
        raise CompileError("the chat template refuses a conversation of one question")
    strips = {
        role: _strips_of(template, joints, ends, allowed, role) for role in {role for _, role in joints}
    }
    return ChatPieces(joints, ends, strips)


def _between(text: str, contents: Sequence[str]) -> list[str]:
    """What stands before, between and after the contents, each of which is there once."""
    pieces = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found or content in text:
            raise CompileError("the chat template does not write every message once, in order")
        pieces.append(before)
    return [*pieces, text]


def _agree(known: str, piece: str, roles: Sequence[str]) -> None:
    if known != piece:
        raise CompileError(
            f"the chat template writes other texts around messages in the conversation {', '.join(roles)}:"
            f" {piece!r} instead of {known!r}"
        )


def _strips_of(
    template: ChatTemplate,
    joints: Mapping[tuple[str, str], str],
    ends: Mapping[str, str],
    allowed: Sequence[Sequence[str]],
    role: str,
) -> int:
    roles = next(roles for roles in allowed if role in roles)
    messages = [(one, " \n\t mid dle \t\n " if one == role else "Qx") for one in roles]
    text = _rendered(template, messages)
    for strips in STRIPS:
        pieces = ChatPieces(joints, ends, {**dict.fromkeys(ROLES, 0), role: strips})
        if text == pieces.prompt(messages):
            return strips
    raise CompileError(f"the chat template changes more than the white space around messages of the {role}")


def _verified(template: ChatTemplate, pieces: ChatPieces) -> ChatPieces:
    """The pieces, if they describe the template on conversations drawn by a fixed seed."""
    for messages in _walks(pieces):
        if _rendered(template, messages) != pieces.prompt(messages):
            roles = ", ".join(role for role, _ in messages)
            raise CompileError(f"the chat template writes something else for the conversation {roles}")
    return pieces


def _walks(pieces: ChatPieces) -> Iterator[list[tuple[str, str]]]:
    """Conversations that the pieces allow."""
    generator = random.Random(0)
    for _ in range(_TRIALS):
        messages: list[tuple[str, str]] = []
        longest, before = generator.randint(1, _LONGEST), ""
        while len(messages) < longest or before not in pieces.ends:
            nexts = [role for role in ROLES if (before, role) in pieces.joints]
            if not nexts or len(messages) > 2 * _LONGEST:
                break
            before = generator.choice(nexts)
            messages.append((before, "".join(generator.choices(_CONTENTS, k=generator.randint(1, 3)))))
        if before in pieces.ends:
            yield messages


def _refusals(source: str, template: ChatTemplate, pieces: ChatPieces) -> ChatPieces:
    """The pieces with what messages must not hold: texts that the template names, and that change what it writes."""
    constants = [node.value for node in _parsed(source).find_all(nodes.Const) if isinstance(node.value, str)]
    named = [text for text in dict.fromkeys(constants) if text.strip() and len(text) < 200]
    refused: dict[str, tuple[str, ...]] = {}
    for role in pieces.strips:
        found = [
            text for text in named if _differs(template, pieces, role, [text, f"x{text}y", f"x {text} y"])
        ]
        marks = [text for text in named if text not in found and not text.isalnum()]
        for first, last in product(marks, marks):
            known = first in found or last in found
            if not known and _differs(template, pieces, role, [f"{first}x{last}"]):
                found.append(last)
        if len(found) > _MOST_REFUSED:
            raise CompileError(f"the chat template treats {len(found)} texts specially, such as {found[0]!r}")
        refused[role] = tuple(found)
    return ChatPieces(pieces.joints, pieces.ends, pieces.strips, refused)


def _differs(template: ChatTemplate, pieces: ChatPieces, role: str, contents: Sequence[str]) -> bool:
    """Whether a message of the role with one of these contents is written otherwise than the pieces say."""
    turns = [one for one in ("system", "user", "assistant", "user") if one in pieces.strips]
    if ("system", "user") not in pieces.joints:
        turns = [one for one in turns if one != "system"]
    if ("user", "assistant") not in pieces.joints or ("assistant", "user") not in pieces.joints:
        turns = ["user"]
    for content in contents:
        for place in [place for place, one in enumerate(turns) if one == role]:
            messages = [(one, content if at == place else "Qx") for at, one in enumerate(turns)]
            if _rendered(template, messages) != pieces.prompt(messages):
                return True
    return False
