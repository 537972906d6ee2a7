"""SmolLM2 from Kotlin, on the JVM: its program loaded from the bundle, and linked with a package."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kotlin_build import (
    answer_request,
    build_jni,
    find_kotlin_jar,
    ids_of,
    java_command,
    java_home,
    run_probe,
    text_of,
)
from sample_prompts import PROMPTS

from forerun.runtime.model import Model

QUESTIONS = ("Name the capital of France.", "And that of Italy?")
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"temperature": 1.0, "seed": 5})
DRAFTERS = ("none", "lookup", "self:layers=20", "feature", "auto")


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libforerun_jni over the installed core."""
    find_kotlin_jar()
    return build_jni(tmp_path_factory.mktemp("loading"))


@pytest.fixture(scope="module")
def linked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libforerun_jni as the package's own CMake file builds it."""
    find_kotlin_jar()
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake (apt install cmake)")
    build = tmp_path_factory.mktemp("linked")
    configure = ["cmake", "-S", str(package / "jvm"), "-B", str(build), f"-DJAVA_HOME={java_home()}"]
    for command in (configure, ["cmake", "--build", str(build)]):
        subprocess.run(command, check=True, capture_output=True)
    return build


def chat(jni: Path, model: Path) -> str:
    """What examples/Chat.kt prints when it is asked both questions."""
    command = java_command(find_kotlin_jar(), jni, "ChatKt", [str(model)])
    asked = "".join(f"{question}\n" for question in QUESTIONS)
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def expected_chat(keep_model: Model) -> str:
    """The same conversation in Python."""
    expected, messages = "", []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        answer = keep_model.generate(messages, max_tokens=512).complete().text
        messages.append({"role": "assistant", "content": answer})
        expected += f"> {answer}\n"
    return expected + "> "


def test_the_example_chats(loading: Path, compiled: Callable[..., Path], expected_chat: str) -> None:
    assert chat(loading, compiled("keep")) == expected_chat


def test_the_example_chats_with_linked_programs(linked: Path, package: Path, expected_chat: str) -> None:
    assert not list((package / "model").rglob("*.so"))
    assert chat(linked, package / "model") == expected_chat


def test_a_target_that_is_not_linked_is_refused(linked: Path, package: Path) -> None:
    told = text_of(dict(run_probe(find_kotlin_jar(), linked, "mistakes", package / "model"))["target"])
    assert "ForerunException 26 " in told and "no program of the model for target moon" in told


def test_ids_are_pythons(loading: Path, compiled: Callable[..., Path], keep_model: Model) -> None:
    """Every kind of drafter, the trained network's among them, greedy and drawn."""
    prompt = keep_model.encode_prompt(PROMPTS[0])
    asked: list[tuple[str, dict[str, Any]]] = [
        (drafter, settings) for drafter in DRAFTERS for settings in SETTINGS
    ]
    requests = [answer_request(drafter, "", prompt, 24, **settings) for drafter, settings in asked]
    answers = run_probe(find_kotlin_jar(), loading, "answers", compiled("keep"), requests)
    plain = [keep_model.generate(prompt, max_tokens=24, **settings).complete() for settings in SETTINGS]
    for (drafter, settings), answer in zip(asked, answers, strict=True):
        expected = plain[SETTINGS.index(settings)]
        assert ids_of(answer[0]) == expected.ids, drafter
        assert text_of(answer[1].replace(",", "")) == expected.text
        drafted = int(answer[7])
        assert drafted > 0 if drafter.startswith(("self", "feature")) else drafted >= 0


def test_a_missing_bundle_is_named(loading: Path, tmp_path: Path) -> None:
    command = java_command(find_kotlin_jar(), loading, "ChatKt", [str(tmp_path)])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "manifest.json" in done.stderr
