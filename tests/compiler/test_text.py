"""Tokenizers and chat templates as data: what is described, and what is refused with which words."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_forms import FORMS

from forerun.compiler.text import text_file, write_text
from forerun.compiler.text.chat_pieces import ChatPieces, chat_pieces
from forerun.compiler.text.compositions import composition_tables
from forerun.compiler.text.patterns import code_points_of, compile_pattern
from forerun.errors import CompileError
from forerun.runtime.chat import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set text = '<|start|>' + message['role'] + '<|end|>\n\n' "
    "+ message['content'] | trim + '<|eot|>' %}{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}"
    "{{ text }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set first = none %}{% endif %}"
    "{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and first is not none %}"
    "{% set text = '<<SYS>>\n' + first + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set text = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + text + ' [/INST]' }}"
    "{% else %}{{ ' ' + text + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' + message['content'] | trim "
    "+ '<end>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
# As Qwen 3: answers lose their thoughts, and the last one is written otherwise.
THINKING = (
    "{% for message in messages %}{% set text = message['content'] %}"
    "{% if message['role'] == 'assistant' and '</think>' in text %}"
    "{% set text = text.split('</think>')[-1] %}{% endif %}"
    "{% if message['role'] == 'user' and text.startswith('<tool>') and text.endswith('</tool>') %}"
    "{% set text = 'a tool says ' + text %}{% endif %}"
    "<|{{ message['role'] }}|>{% if loop.last and message['role'] == 'assistant' %}<think></think>{% endif %}"
    "{{ text }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "llama2": LLAMA2, "gemma": GEMMA, "thinking": THINKING}


def pieces_of(source: str) -> ChatPieces:
    return chat_pieces(source, ChatTemplate(source, lambda: SPECIAL))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [False, True])
def test_templates_as_pieces(name: str, system: bool) -> None:
    pieces = pieces_of(TEMPLATES[name])
    turns = [("system", " Be brief. ")] * system
    turns += [("user", " Hi\n"), ("assistant", "\tHo "), ("user", ""), ("assistant", "x"), ("user", "é")]
    if name == "gemma" and system:
        assert ("", "system") not in pieces.joints
        return
    rendered = ChatTemplate(TEMPLATES[name], lambda: SPECIAL).render(
        [{"role": role, "content": content} for role, content in turns]
    )
    assert pieces.prompt(turns) == rendered


def test_pieces_know_their_template() -> None:
    chatml, llama3, thinking = pieces_of(CHATML), pieces_of(LLAMA3), pieces_of(THINKING)
    assert chatml.joints["", "user"] == "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n"
    assert chatml.joints["user", "user"] and chatml.ends["system"], "any order is allowed"
    assert set(chatml.strips.values()) == {0} and set(llama3.strips.values()) == {3}
    assert ("user", "user") not in thinking.joints, "questions and answers in turn"
    assert thinking.refused["assistant"] == ("</think>",)
    assert len(thinking.refused["user"]) == 1 and not thinking.refused["system"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (CHATML + "{{ strftime_now('%d') }}", "writes the date"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "every message once"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "every message once"),
        ("{{ raise_exception('never') }}", "refuses a conversation of one question"),
        ("{% for m in messages %}{{ loop.index }}: {{ m.content }}{% endfor %}", "in the conversation"),
        (
            "{% for m in messages %}{{ m.content.replace(' ', '_') }}|{% endfor %}",
            "more than the white space",
        ),
        (
            "{% for m in messages %}<{{ m.content }}>{% endfor %}{{ messages | length }}",
            "in the conversation",
        ),
        ("{% for m in messages %}{{ m.content or '-' }}|{% endfor %}", "something else for the conversation"),
    ],
)
def test_templates_that_pieces_cannot_describe(source: str, words: str) -> None:
    with pytest.raises(CompileError, match=words):
        pieces_of(source)


Change = Callable[[dict[str, Any]], None]


def changed(form: str, change: Change) -> str:
    document = json.loads(FORMS[form]().to_str())
    change(document)
    return json.dumps(document)


def set_part(name: str, value: Any) -> Change:
    return lambda document: document.update({name: value})


def set_model(**values: Any) -> Change:
    return lambda document: document["model"].update(values)


def split(pattern: str, **changes: Any) -> Change:
    part = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
        **changes,
    }
    return set_part("pre_tokenizer", part)


def single_word(document: dict[str, Any]) -> None:
    document["added_tokens"][-1]["single_word"] = True


def half_the_bytes(document: dict[str, Any]) -> None:
    document["model"]["vocab"] = {
        token: number for token, number in document["model"]["vocab"].items() if token != "<0x41>"
    }


FUSED_STRIP = {"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_model(type="WordPiece"), "model has WordPiece"),
        (set_model(dropout=0.5), r"dropout 0\.5"),
        (set_model(end_of_word_suffix="</w>"), "end_of_word_suffix"),
        (set_part("normalizer", {"type": "Lowercase"}), "normalizer has Lowercase"),
        (set_part("pre_tokenizer", {"type": "Whitespace"}), "pre-tokenizer has Whitespace"),
        (set_part("decoder", {"type": "WordPiece", "prefix": "##"}), "decoder has WordPiece"),
        (set_part("decoder", FUSED_STRIP), "the steps Strip"),
        (split("a", invert=True), "inverted"),
        (split("a", behavior="Contiguous"), "Contiguous"),
        (split("^a"), "an anchor"),
        (split("a+?"), "lazy"),
        (split("(?<=a)b"), "a group that is not known"),
        (split("(a"), "missing"),
        (split("(?:a*)*"), "repeats without limit what may be empty"),
        (split("(?:a|b?)+"), "repeats without limit what may be empty"),
        (split("(?:(?:ab){500}){500}"), "operations"),
        (split("(?=" * 9 + "a" + ")" * 9), "9 deep"),
        (single_word, "single word"),
        (half_the_bytes, "255 of 256 bytes"),
        (lambda document: document["model"].pop("merges"), "library cannot read tokenizer.json"),
        (set_part("pre_tokenizer", {"type": "Split"}), "lacks or garbles 'behavior'"),
        (split(r"\p{Klingon}"), "has the class"),
    ],
)
def test_tokenizers_that_the_core_does_not_know(change: Change, words: str) -> None:
    with pytest.raises(CompileError, match=words):
        text_file(changed("llama2", change))


def test_what_is_no_tokenizer() -> None:
    for text in ("", "[]", "{}", '{"model": {"type": "BPE"}}'):
        with pytest.raises(CompileError, match=r"tokenizer\.json"):
            text_file(text)


def test_patterns_that_may_be_empty_come_to_an_end() -> None:
    """Where the repeated part takes something, or is repeated so many times."""
    for source in ("(?:a*b)*", "(?:a?){3}", r"\s+(?!\S)|\s+", "(?:ab|cd)+"):
        assert compile_pattern(source).operations


def test_classes_come_from_the_library() -> None:
    assert code_points_of(r"\d")[0] == (ord("0"), ord("9"))
    assert code_points_of("x") == ((120, 120),)
    letters = code_points_of(r"\p{L}")
    assert letters[0] == (65, 90) and all(first <= last for first, last in letters)


def test_compositions_are_unicodes() -> None:
    """As far as Python's own tables know the characters."""
    decompositions, pool, marks, compositions = (
        np.frombuffer(data, "<u4").tolist() for data in composition_tables()
    )
    for point, start, count in zip(*(decompositions[at::3] for at in range(3)), strict=True):
        parts = "".join(map(chr, pool[start : start + count]))
        assert unicodedata.normalize("NFD", chr(point)) == parts
    for point, rank in zip(marks[::2], marks[1::2], strict=True):
        assert unicodedata.combining(chr(point)) in (0, rank)
    for first, second, whole in zip(*(compositions[at::3] for at in range(3)), strict=True):
        assert unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(whole)
    assert len(marks) > 2 * 700 and len(compositions) > 3 * 900


SETTINGS = {"tokenizer": {"bos_token_id": None, "eos_token_ids": [2], "add_bos": False}}


def test_a_bundle_gets_a_text(tmp_path: Path) -> None:
    assert write_text(tmp_path, SETTINGS).lines() == [] and not list(tmp_path.iterdir()), "a draft's bundle"
    FORMS["gemma"]().save(str(tmp_path / "tokenizer.json"))
    assert write_text(tmp_path, SETTINGS).lines() == []
    assert (tmp_path / "text.bin").read_bytes().startswith(b"FRTEXT")


def test_a_bundle_without_a_text_says_why(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(changed("gemma", set_model(dropout=0.1)))
    report = write_text(tmp_path, SETTINGS)
    assert "dropout" in report.refusal and "text from Python only" in report.lines()[0]
    assert not (tmp_path / "text.bin").exists()


def test_files_that_cannot_be_read_are_reasons_too(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    assert "tokenizer.json cannot be read" in write_text(tmp_path, SETTINGS).refusal
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    assert "cannot read tokenizer.json" in write_text(tmp_path, SETTINGS).refusal
    FORMS["gemma"]().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    assert "chat_template.jinja cannot be read" in write_text(tmp_path, SETTINGS).chat_refusal


def test_a_bundle_without_chat_prompts_says_why(tmp_path: Path) -> None:
    FORMS["gemma"]().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d') }}")
    report = write_text(tmp_path, SETTINGS)
    assert not report.refusal and "the date" in report.lines()[0]
    assert b"writes the date" in (tmp_path / "text.bin").read_bytes()
