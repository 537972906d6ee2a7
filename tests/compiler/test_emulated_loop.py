"""The native loop on a 64-bit Arm against its definition here: drafters, shapes and exits, greedy and sampled."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulated_answers import Question, answer_by_definition, answer_emulated, build_app
from emulated_kernels import MISSING
from tiny_drafts import write_draft
from tiny_models import write_folder

import forerun
from forerun.compiler import compile_export
from forerun.compiler.package import package_bundle
from forerun.export import export_model
from forerun.targets import TARGETS, detect_target

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

TARGET = "arm64"
DRAFTED = (
    ("none", None),
    ("lookup:min_ngram=1,branches=3", "tree:branches=2+2+1"),
    ("self:layers=1,tokens=4", None),
    ("self:skip=a1+f0", "cape:siblings=2"),
    ("feature:tokens=3", None),
    ("feature", "grown:rows=9,reach=0,width=3"),
    ("auto", None),
)
SAMPLED = ((0.0, 0, 0), (1.0, 0, 5), (0.7, 20, 6))
PROMPTS = ((5, 17, 250, 3, 99, 5, 17, 250), (7,), (40, 41, 42, 40, 41, 42, 40, 41))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a draft, for this machine and every 64-bit Arm."""
    own = detect_target()
    if own.weight_layout != TARGETS[TARGET].weight_layout or not own.fma:
        pytest.skip(f"{own.name} stores weights otherwise, or rounds otherwise")
    root = tmp_path_factory.mktemp("loop")
    export_model(write_folder(root / "model", seed=3), root / "export", "f32")
    drafts = {"feature": write_draft(root / "feature", "feature", seed=7, taps=(1,)).directory}
    compile_export(root / "export", root / "bundle", own.name, also=(TARGET,), drafts=drafts)
    return root / "bundle"


@pytest.fixture(scope="module")
def package(bundle: Path) -> Path:
    folder = bundle.with_name("package")
    package_bundle(bundle, "linux-arm64", folder, name="tiny")
    build_app(folder, folder / "app")
    return folder


@pytest.mark.parametrize("processor", ("cortex-a53", "max"))
def test_the_loop_on_arm_is_the_loop(processor: str, bundle: Path, package: Path) -> None:
    """Ids and acceptance traces; the sequence is saved and restored between answers."""
    questions = [
        Question(prompt, drafter, shape, exits, *sampled)
        for prompt, sampled in zip(PROMPTS, SAMPLED, strict=True)
        for drafter, shape in DRAFTED
        for exits in ("never", "confidence:layers=0,threshold=0.05")
    ]
    with forerun.load(bundle, threads=1) as model:
        expected = answer_by_definition(model, questions)
    assert answer_emulated(package / "app", package / "model", processor, questions) == expected
    assert sum(sum(trace.accepted) for trace in expected) > 20
    assert any(trace.exits for trace in expected)
