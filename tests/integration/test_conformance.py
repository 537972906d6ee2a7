"""The native loop against its definition on SmolLM2, and as a C program uses it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance import check_conformance
from sample_prompts import PROMPTS

import forerun
from forerun.runtime.library import find_library
from forerun.runtime.model import Model

ROOT = Path(__file__).parents[2]
SPECS: tuple[tuple[str, str | None], ...] = (
    ("none", None),
    ("lookup:min_ngram=1,branches=3", "tree:branches=2+2+1"),
    ("self:layers=20", "cape"),
    ("self:skip=a3+f3+a17", None),
    ("feature:tokens=3", None),
    ("feature", "grown:rows=15,reach=0.02,tokens=5"),
    ("feature", "tree:branches=3+2+1"),
    ("auto", None),
)
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0, "seed": 5},
    {"temperature": 0.7, "top_p": 0.9, "seed": 6},
    {"exit": "confidence:layers=9+19,threshold=0.6"},
)
QUESTIONS = ("Name the capital of France.", "And that of Italy?")


@pytest.mark.parametrize("settings", SETTINGS, ids=("greedy", "t1", "top_p", "exits"))
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_both_loops_agree(keep_model: Model, spec: tuple[str, str | None], settings: dict[str, Any]) -> None:
    for number in (0, 4, 18):
        prompt = keep_model.encode_prompt(PROMPTS[number])
        check_conformance(keep_model, prompt, drafter=spec[0], shape=spec[1], max_tokens=40, **settings)


def test_the_example_in_c_chats(compiled: Callable[..., Path], tmp_path: Path) -> None:
    """Two questions, the second about the first: the answers that Python gives, by the planner's drafts."""
    bundle, library = compiled("keep"), find_library()
    program = tmp_path / "chat"
    headers = ROOT / "runtime" / "native" / "include"
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-I", headers]
    command += [ROOT / "examples" / "chat.c", library, f"-Wl,-rpath,{library.parent}", "-o", program]
    subprocess.run(list(map(str, command)), check=True)
    said = subprocess.run(
        [str(program), str(bundle)],
        input="".join(f"{question}\n" for question in QUESTIONS),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    expected, messages = "", []
    with forerun.load(bundle) as model:
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            answer = model.generate(messages, max_tokens=512, loop="python").complete().text
            messages.append({"role": "assistant", "content": answer})
            expected += f"> {answer}\n"
    assert said.stdout == expected + "> "


def test_the_example_chats_with_the_programs_of_a_package(
    compiled: Callable[..., Path], package: Path, tmp_path: Path
) -> None:
    """Model and draft are part of the program; no library is loaded."""
    source = (ROOT / "examples" / "chat.c").read_text()
    opened = "forerun_bundle_open(arguments[1], NULL, &bundle)"
    assert opened in source
    linked = "forerun_bundle_open_linked(arguments[1], forerun_smol_programs, FORERUN_SMOL_PROGRAMS, &bundle)"
    (tmp_path / "chat.c").write_text('#include "smol.h"\n' + source.replace(opened, linked))
    command = [
        "c++",
        "-x",
        "c",
        "-std=gnu11",
        "-O1",
        "-I",
        package / "include",
        tmp_path / "chat.c",
        "-x",
        "none",
    ]
    command += [package / "lib" / "libsmol.a", package / "lib" / "libforerun.a", "-lpthread", "-ldl", "-lm"]
    subprocess.run([*map(str, command), "-o", str(tmp_path / "chat")], check=True)
    said = subprocess.run(
        [str(tmp_path / "chat"), str(package / "model")],
        input=f"{QUESTIONS[0]}\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    with forerun.load(compiled("keep")) as model:
        answer = model.generate(QUESTIONS[0], max_tokens=512, loop="python").complete().text
    assert said.stdout == f"> {answer}\n> "
    assert not list((package / "model").rglob("*.so"))


def test_the_example_says_what_is_wrong(tmp_path: Path) -> None:
    program, library = tmp_path / "chat", find_library()
    headers = ROOT / "runtime" / "native" / "include"
    command = ["cc", "-I", headers, ROOT / "examples" / "chat.c", library, f"-Wl,-rpath,{library.parent}"]
    subprocess.run([*map(str, command), "-o", str(program)], check=True)
    refused = subprocess.run(
        [str(program), str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "manifest.json" in refused.stderr
