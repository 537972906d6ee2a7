"""A package for WebAssembly in Node and in Chromium: the ids and logits of this machine, texts, refusals."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash
from tiny_drafts import write_draft
from tiny_models import VARIANTS, write_folder
from web_answers import DRAFTERS, MESSAGES, PROMPT, SAMPLED, TOKENS, all_answers, answer, job
from web_runner import needs_browser, needs_node, needs_zig, run_job_in_browser, run_job_in_node, run_node

import forerun
from forerun.compiler import compile_export
from forerun.compiler.build import native_folder
from forerun.compiler.package import package_bundle
from forerun.export import export_model
from forerun.runtime.session import LoadedProgram, Session

pytestmark = needs_zig


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model and a draft for wasm32, and for the target here that rounds alike: it has no FMA either."""
    root, quant = tmp_path_factory.mktemp("web"), random.choice(("q4", "q5", "q6"))
    print(f"quantization {quant}")
    export_model(write_folder(root / "model", seed=3, **VARIANTS["qwen2"]), root / "export", quant)
    draft = write_draft(root / "draft", "feature", seed=7, feature_size=3 * 64)
    drafts = {"feature": draft.directory}
    return {
        target: compile_export(root / "export", root / target, target, drafts=drafts).bundle
        for target in ("wasm32", "x86-64")
    }


@pytest.fixture(scope="module")
def package(bundles: dict[str, Path]) -> Path:
    folder = bundles["wasm32"].parent / "package"
    package_bundle(bundles["wasm32"], "wasm32", folder, name="tiny")
    return folder


def test_a_package_is_a_folder_to_serve(package: Path) -> None:
    assert {
        path.name for path in package.iterdir() if path.suffix not in (".mjs", ".mts", ".css", ".py")
    } == {
        "README.md",
        "forerun-package.json",
        "index.html",
        "model",
        "model-threads.wasm",
        "model.wasm",
    }
    assert {path.name for path in (package / "model").iterdir()} == {
        "drafts",
        "manifest.json",
        "text.bin",
        "weights.bin",
    }


@pytest.fixture(scope="module")
def here(bundles: dict[str, Path]) -> dict[str, Any]:
    """What this machine answers: greedy ids, sampled ids, and an answer to a message."""
    with forerun.load(bundles["x86-64"], threads=1) as model:
        sampling = {"temperature": 0.9, "top_k": 50, "seed": SAMPLED["seed"]}
        greedy = model.generate(PROMPT, max_tokens=TOKENS, ignore_end=True).complete()
        sampled = model.generate(PROMPT, max_tokens=TOKENS, ignore_end=True, **sampling).complete()
        chat = model.generate(MESSAGES, max_tokens=12, ignore_end=True).complete()
        return {"greedy": greedy.ids, "sampled": sampled.ids, "chat": (chat.ids, chat.text)}


def check_ids(made: dict[str, Any], here: dict[str, Any], threads: int) -> None:
    """Plain and drafted answers are this machine's, and drafts were accepted."""
    greedy, sampled = made["answers"][: len(DRAFTERS)], made["answers"][len(DRAFTERS) : -1]
    assert [each["ids"] for each in greedy] == [here["greedy"]] * len(DRAFTERS)
    assert [each["ids"] for each in sampled] == [here["sampled"]] * 2
    assert all(each["finish"] == "length" and each["pieces"] == each["text"] for each in made["answers"])
    accepted = {
        drafter: each["statistics"]["accepted"] for drafter, each in zip(DRAFTERS, greedy, strict=True)
    }
    assert accepted["none"] == 0 and accepted["self:layers=1,tokens=3"] > 0
    assert greedy[1]["statistics"]["cachedTokens"] == len(PROMPT) - 1
    chat = made["answers"][-1]
    assert (chat["ids"], chat["text"]) == here["chat"]
    assert made["facts"]["target"] == "wasm32" and made["facts"]["endIds"]
    assert made["facts"]["threads"] == threads
    assert made["progress"]["receivedBytes"] == made["progress"]["totalBytes"] > 0


@needs_node
@pytest.mark.parametrize("threads", (1, 2))
def test_node_has_the_ids_of_this_machine(threads: int, package: Path, here: dict[str, Any]) -> None:
    check_ids(run_job_in_node(package, job(str(package), *all_answers(), threads=threads)), here, threads)


@needs_browser
@pytest.mark.parametrize("threads", (1, 2))
def test_chromium_has_the_ids_of_this_machine(
    threads: int, package: Path, here: dict[str, Any], tmp_path: Path
) -> None:
    made = run_job_in_browser(package, job("/", *all_answers(), threads=threads), tmp_path)
    check_ids(made, here, threads)


@needs_node
def test_closing_ends_every_worker(package: Path) -> None:
    made = run_node("close.mjs", str(package))
    assert made["after"] <= made["before"]
    assert all(running >= made["before"] + 3 for running in made["loaded"])


@needs_node
@pytest.mark.parametrize("threads", (0, 1.5, 257))
def test_a_number_of_threads_that_cannot_be_is_told(threads: float, package: Path) -> None:
    error = run_job_in_node(package, job(str(package), threads=threads))["error"]
    assert str(threads) in error and "from 1 to 256" in error


@needs_browser
def test_several_threads_need_an_isolated_page(package: Path, tmp_path: Path) -> None:
    made = run_job_in_browser(package, {"page": "isolation.mjs"}, tmp_path, isolated=False)
    assert (made["isolated"], made["threads"]) == (False, 1)
    for header in ("Cross-Origin-Opener-Policy: same-origin", "Cross-Origin-Embedder-Policy: require-corp"):
        assert header in made["error"]


@needs_node
@pytest.mark.parametrize("threads", (1, 2, 3))
def test_logits_have_the_bits_of_this_machine_in_any_rows(
    threads: int, bundles: dict[str, Path], package: Path
) -> None:
    """wasm32 and x86-64 multiply and add with two roundings, in one order."""
    tokens = [*PROMPT, *range(40, 57)]
    with Session(LoadedProgram(bundles["x86-64"]), threads=1) as session:
        sequence = session.create_sequence()
        session.stage(sequence, tokens)
        logits = session.forward([(sequence, row) for row in range(len(tokens))]).logits
        expected = [xxhash.xxh64(row.tobytes()).hexdigest() for row in logits]
    made = run_node("logits.mjs", str(package), str(threads), *map(str, tokens))
    assert made["alone"] == made["together"] == expected


@needs_node
def test_an_answer_is_cancelled_and_the_next_one_is_whole(package: Path, here: dict[str, Any]) -> None:
    long = {**answer(maxTokens=100, drafter="none"), "cancelAfter": 0}
    cancelled, whole = run_job_in_node(package, job(str(package), long, answer()))["answers"]
    assert cancelled["finish"] == "cancelled" and len(cancelled["ids"]) < 100
    assert whole["ids"] == here["greedy"]


@needs_node
def test_mistakes_are_told_and_the_model_goes_on(package: Path, here: dict[str, Any]) -> None:
    mistakes = [answer(drafter="magic"), answer(temprature=1), answer(temperature=-1), {"prompt": [999999]}]
    *failed, whole = run_job_in_node(package, job(str(package), *mistakes, answer()))["answers"]
    errors = [each["error"] for each in failed]
    for error, said in zip(
        errors, ("magic", "known options: maxTokens", "temperature", "999999"), strict=True
    ):
        assert said in error
    assert [each["status"] for each in failed] == [1, None, 1, 1]
    assert whole["ids"] == here["greedy"]


@needs_node
@pytest.mark.parametrize(
    ("spoil", "said", "status"),
    (
        (lambda model: flip(model / "weights.bin"), r"weights.bin was changed after it was written", 24),
        (lambda model: (model / "text.bin").unlink(), "text.bin", 20),
        (lambda model: cut(model / "weights.bin"), "weights.bin has", 23),
        (lambda model: (model / "manifest.json").write_text("{"), "manifest.json", 21),
        (lambda model: flip(model / "drafts/feature/manifest.json"), "manifest", None),
        (shutil.rmtree, "manifest.json", 20),
    ),
    ids=("changed", "missing", "cut", "no manifest", "changed draft", "nothing"),
)
def test_damaged_packages_are_refused(
    spoil: Callable[[Path], object], said: str, status: int | None, package: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "package"))
    spoil(copy / "model")
    made = run_job_in_node(copy, job(str(copy), answer(drafter="feature")))
    refused = made if "error" in made else made["answers"][0]
    assert said in refused["error"]
    assert status is None or refused["status"] == status


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@needs_browser
def test_the_page_chats_and_stops(package: Path, tmp_path: Path) -> None:
    made = run_job_in_browser(package, {"page": "chat_page.mjs", "path": "/index.html"}, tmp_path)
    assert made["loadingHidden"] and made["roles"] == ["user", "assistant"] * 2
    assert made["device"].startswith("It runs on the processor, on ")
    for each in made["answers"]:
        assert each["stopWorks"] and each["sendWaits"]
        tokens = re.match(r"([0-9]+) tokens · ", each["statistics"])
        assert tokens and int(tokens[1]) < 50


@needs_browser
def test_the_page_shows_what_is_wrong(package: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "package"))
    flip(copy / "model" / "weights.bin")
    made = run_job_in_browser(copy, {"page": "chat_page.mjs", "path": "/index.html"}, tmp_path / "profile")
    assert "weights.bin was changed" in made["error"]


TYPED = """
import { Forerun, ForerunError } from "./forerun.mjs";
const model = await Forerun.load("./", { onProgress: (step) => console.log(step.receivedBytes / step.totalBytes) });
const answer = model.chat([{ role: "user", content: "?" }], { maxTokens: 3, seed: 2n, drafter: "lookup" });
for await (const text of answer) console.log(text.length);
const length: number = (await answer.result).statistics.generatedTokens;
const status: number | null = new ForerunError().status;
"""


@pytest.mark.skipif(shutil.which("tsc") is None, reason="needs tsc (npm install -g typescript)")
def test_types_describe_the_module(tmp_path: Path) -> None:
    """A program that uses the module passes, and one with a wrong option does not."""
    for name in ("forerun.mjs", "forerun.d.mts"):
        shutil.copyfile(native_folder().parent / "web" / name, tmp_path / name)
    flags = [
        "--noEmit",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--lib",
        "es2022,dom,esnext",
    ]
    for name, source, passes in (
        ("good", TYPED, True),
        ("bad", TYPED.replace("maxTokens", "max_tokens"), False),
    ):
        (tmp_path / f"{name}.mts").write_text(source)
        done = subprocess.run(
            ["tsc", *flags, f"{name}.mts"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == passes, done.stdout
        assert passes or "max_tokens" in done.stdout
