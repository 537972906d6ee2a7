"""A package with programs for the browser's GPU, in Chromium on its software GPU."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_drafts import write_draft
from tiny_models import VARIANTS, write_folder
from web_answers import DRAFTERS, PROMPT, all_answers, answer, job
from web_runner import (
    SOFTWARE_GPU,
    needs_browser,
    needs_node,
    needs_zig,
    run_job_in_browser,
    run_job_in_node,
)

from forerun.compiler import compile_export
from forerun.compiler.package import package_bundle
from forerun.export import export_model
from forerun.runtime.library import Status

pytestmark = needs_zig
TOKENS = [*PROMPT, *range(40, 57)]
GPU = "webgpu-wasm32"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model and a draft, for the processor and the GPU."""
    root, quant = tmp_path_factory.mktemp("gpu"), random.choice(("q4", "q5", "q8"))
    print(f"quantization {quant}")
    export_model(write_folder(root / "model", seed=3, **VARIANTS["qwen2"]), root / "export", quant)
    draft = write_draft(root / "draft", "feature", seed=7, feature_size=3 * 64)
    compile_export(
        root / "export", root / "bundle", "wasm32", also=(GPU,), drafts={"feature": draft.directory}
    )
    package_bundle(root / "bundle", "wasm32", root / "package", name="tiny")
    return root / "package"


@needs_browser
def test_the_gpu_computes_the_same_ids_with_every_drafter(package: Path, tmp_path: Path) -> None:
    """Rows have the same bits in every call and logits near the processor's, a fork those of its sequence, though they
    wait to be moved; the queue keeps its order; a lost GPU is an error."""
    files = [
        str(path.relative_to(package / "model")) for path in (package / "model").rglob("*") if path.is_file()
    ]
    page = {
        "page": "gpu_page.mjs",
        "job": job("/", *all_answers(), device="gpu"),
        "sizes": cache_sizes(package),
    }
    made = run_job_in_browser(package, {**page, "tokens": TOKENS, "files": files}, tmp_path, gpu=SOFTWARE_GPU)
    assert "error" not in made, made["error"]
    check_answers(made["answers"])
    rows = made["rows"]
    assert rows["alone"] == rows["together"] and len(set(rows["alone"])) == len(TOKENS)
    ours, theirs = np.array(rows["logits"]), np.array(made["processor"])
    assert np.sqrt(((ours - theirs) ** 2).mean()) < 0.05 * theirs.std()
    moves = made["moves"]
    assert moves["fork"] == moves["straight"], "a fork lacks what was to be moved"
    assert moves["moved"] == moves["straight"] and moves["saved"] == Status.FILE
    # Reads by their addresses: what was written first had been copied; then its second half, copied to the first.
    assert made["copied"] == [[0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 9, 9, 9, 9, 9, 9, 9, 9]]
    assert made["lost"]["status"] == 34 and "lost" in made["lost"]["message"]


def cache_sizes(package: Path) -> dict[str, int]:
    """The package's layers, and the numbers that a position's keys take in one."""
    values = json.loads((package.parent / "model" / "config.json").read_text())
    head = values["hidden_size"] // values["num_attention_heads"]
    return {"layers": values["num_hidden_layers"], "kvFloats": values["num_key_value_heads"] * head}


def check_answers(made: dict[str, Any]) -> None:
    assert made["facts"]["target"] == GPU and made["facts"]["device"] and made["facts"]["whyNoDevice"] is None
    assert all(each["finish"] == "length" for each in made["answers"])
    greedy, sampled = made["answers"][: len(DRAFTERS)], made["answers"][len(DRAFTERS) : -1]
    for answers in (greedy, sampled):
        assert [each["ids"] for each in answers] == [answers[0]["ids"]] * len(answers)
    assert len(greedy) == len(DRAFTERS) and len(sampled) == 2
    assert all(each["statistics"]["drafted"] > 0 for each in greedy[1:-1])


@needs_browser
def test_the_processor_computes_where_there_is_no_gpu(package: Path, tmp_path: Path) -> None:
    facts = run_job_in_browser(package, job("/", answer()), tmp_path)["facts"]
    assert facts["target"] == "wasm32" and facts["device"] is None and "GPU" in facts["whyNoDevice"]


@needs_node
def test_a_gpu_that_is_not_there_is_told(package: Path) -> None:
    asked = run_job_in_node(package, job(str(package), answer(), device="gpu"))
    assert asked["status"] == 34 and "no GPU can be used" in asked["error"]
    wrong = run_job_in_node(package, job(str(package), answer(), device="npu"))
    assert "npu" in wrong["error"] and "auto, cpu, gpu" in wrong["error"]
    chosen = run_job_in_node(package, job(str(package), answer(), device="cpu"))
    assert chosen["facts"]["target"] == "wasm32" and chosen["facts"]["whyNoDevice"] is None
