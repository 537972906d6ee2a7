"""SmolLM2 in Node and in Chromium: the ids of this machine's kernels without FMA, with drafts and without."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from web_runner import (
    SOFTWARE_GPU,
    needs_browser,
    needs_node,
    needs_zig,
    run_job_in_browser,
    run_job_in_node,
)

import forerun
from forerun.compiler.package import package_bundle

pytestmark = [pytest.mark.real_model, needs_zig]
MESSAGES = [{"role": "user", "content": "Name three rivers."}]
TOKENS = 32


@pytest.fixture(scope="module")
def package(compiled: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "package"
    package_bundle(compiled("keep", "wasm32"), "wasm32", folder)
    return folder


@pytest.fixture(scope="module")
def expected(compiled: Callable[..., Path]) -> list[int]:
    with forerun.load(compiled("keep", "x86-64"), threads=2) as model:
        return model.generate(MESSAGES, max_tokens=TOKENS).complete().ids


def job(url: str) -> dict[str, Any]:
    answers = [
        {"messages": MESSAGES, "options": {"maxTokens": TOKENS, "drafter": drafter}}
        for drafter in ("none", "lookup", "feature")
    ]
    return {"url": url, "answers": answers, "load": {"capacity": 512}}


def check(made: dict[str, Any], expected: list[int]) -> None:
    plain, lookup, feature = made["answers"]
    assert plain["ids"] == lookup["ids"] == feature["ids"] == expected
    assert feature["statistics"]["accepted"] > 0 and plain["text"].strip()


@needs_node
def test_node_has_the_ids_of_this_machine(package: Path, expected: list[int]) -> None:
    check(run_job_in_node(package, job(str(package))), expected)


@needs_browser
def test_chromium_has_the_ids_of_this_machine(package: Path, expected: list[int], tmp_path: Path) -> None:
    check(run_job_in_browser(package, job("/"), tmp_path), expected)


@needs_browser
@pytest.mark.skipif("FORERUN_TEST_DEVICES" not in os.environ, reason="make test-gpu-emulated runs it")
def test_chromiums_gpu_gives_the_same_ids_with_every_drafter(
    compiled: Callable[..., Path], tmp_path: Path
) -> None:
    """On Chromium's software GPU, which takes minutes to compile the kernels."""
    package_bundle(compiled("keep", "webgpu-wasm32"), "wasm32", tmp_path / "package")
    sampled = {"temperature": 0.8, "seed": 5}
    answers = [
        {
            "messages": MESSAGES,
            "options": {"maxTokens": 16, "drafter": drafter, "ignoreEnd": True, **settings},
        }
        for settings in ({}, sampled)
        for drafter in ("none", "lookup:min_ngram=1", "feature:tokens=4", "self:layers=24,tokens=2")
    ]
    load = {"capacity": 512, "device": "gpu"}
    made = run_job_in_browser(
        tmp_path / "package",
        {"url": "/", "answers": answers, "load": load},
        tmp_path / "profile",
        gpu=SOFTWARE_GPU,
        limit_s=1800,
    )
    assert made["facts"]["target"] == "webgpu-wasm32" and made["facts"]["device"]
    ids = [each["ids"] for each in made["answers"]]
    assert ids[:4] == [ids[0]] * 4 and ids[4:] == [ids[4]] * 4 and len(ids[0]) == 16
    assert made["answers"][2]["statistics"]["accepted"] > 0
    print(made["answers"][0]["text"], made["answers"][0]["statistics"])
