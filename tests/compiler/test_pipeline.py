"""Whole compilations of tiny random models: right in ONNX Runtime's eyes, and nothing left behind on errors."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import RandomTrees
from tiny_models import STRUCTURES, VARIANTS, write_folder, write_gguf

import forerun
from forerun.compiler import compile_export
from forerun.compiler.pack import WeightsFile
from forerun.errors import BundleError, CompileError, ForerunError, OptionError, OutputError, TargetError
from forerun.export import export_model
from forerun.export.check import tree_inputs
from forerun.export.oracle import Oracle
from forerun.runtime.bundle import read_bundle
from forerun.runtime.language import read_language
from forerun.runtime.model import Model
from forerun.runtime.native_text import NativeText
from forerun.runtime.session import LoadedProgram, Session

TREE = (-1, 0, 0, 1, 3, 2, -1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A function (variant, quant) → export directory of a tiny random model."""
    root, made = tmp_path_factory.mktemp("exports"), {}

    def make(variant: str, quant: str) -> Path:
        if (variant, quant) not in made:
            source = root / f"{variant}-model"
            if not source.exists():
                write_folder(source, seed=len(made), **VARIANTS[variant])
            made[variant, quant] = export_model(source, root / f"{variant}-{quant}", quant).directory
        return made[variant, quant]

    return make


def through_session(bundle: Path, prompt: np.ndarray, drafted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of a prompt's rows and of a tree after it."""
    session = Session(LoadedProgram(bundle), threads=2)
    sequence = session.create_sequence()
    rows = list(session.stage(sequence, prompt.tolist()))
    first = session.forward([(sequence, row) for row in rows]).logits.copy()
    session.commit(sequence, rows)
    rows = list(session.stage(sequence, drafted.tolist(), TREE))
    second = session.forward([(sequence, row) for row in rows]).logits.copy()
    session.close()
    return first, second


@pytest.mark.parametrize("target", (None, "x86-64"), ids=("native", "portable"))
@pytest.mark.parametrize("variant", STRUCTURES)
def test_every_structure_equals_onnx_runtime(
    variant: str,
    target: str | None,
    exported: Callable[[str, str], Path],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    """float32 throughout: two layers of sums over 96 products at most, so 1e-4 is a hundred roundings."""
    export = exported(variant, "f32")
    compile_export(export, tmp_path / "bundle", target, kv="f32")
    prompt, drafted = rng.integers(0, 288, 21), rng.integers(0, 288, len(TREE))
    ours = through_session(tmp_path / "bundle", prompt, drafted)
    oracle = Oracle(export)
    theirs = oracle.forward(prompt)
    positions, mask = tree_inputs(TREE, len(prompt))
    tree = oracle.forward(drafted, positions, mask, theirs.present)
    np.testing.assert_allclose(ours[0], theirs.logits, atol=1e-4)
    np.testing.assert_allclose(ours[1], tree.logits, atol=1e-4)


def distance_from_onnx_runtime(export: Path, bundle: Path, rng: np.random.Generator) -> float:
    """Return the root mean square of what a random prompt's logits differ by, in their standard deviation."""
    prompt, drafted = rng.integers(0, 288, 21), rng.integers(0, 288, len(TREE))
    ours = through_session(bundle, prompt, drafted)[0]
    theirs = Oracle(export).forward(prompt).logits
    return float(np.sqrt(((ours - theirs) ** 2).mean()) / theirs.std())


@pytest.mark.parametrize("quant", ("q8", "q6", "q5", "q4"))
def test_quantized_models_stay_near_onnx_runtime(
    quant: str, exported: Callable[[str, str], Path], tmp_path: Path, rng: np.random.Generator
) -> None:
    """int8 activations are off by up to 1/254 of the largest of 16: some per cent of a random model's logits."""
    export = exported("qwen2", quant)
    compile_export(export, tmp_path / "bundle")
    assert distance_from_onnx_runtime(export, tmp_path / "bundle", rng) < 0.05


@pytest.mark.parametrize(
    ("kind", "architecture"), (("Q4_0", "llama"), ("Q4_1", "phi3"), ("Q5_0", "llama"), ("Q8_0", "granite"))
)
def test_a_file_of_one_block_type_throughout(
    kind: str, architecture: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The embedding and the head are of that type, too; Phi-3's blocks are cut out of joined matrices."""
    factors = {"granite.residual_scale": 0.4, "granite.embedding_scale": 3.0, "granite.logit_scale": 2.0}
    write_gguf(
        *(tmp_path / "model.gguf", int(rng.integers(1000)), GGMLQuantizationType[kind], architecture),
        metadata=factors if architecture == "granite" else None,
        tie_word_embeddings=architecture == "granite",
    )
    export = export_model(tmp_path / "model.gguf", tmp_path / "export", "keep").directory
    compile_export(export, tmp_path / "bundle")
    assert distance_from_onnx_runtime(export, tmp_path / "bundle", rng) < 0.05


@pytest.fixture(scope="module")
def tiny(exported: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    bundle = tmp_path_factory.mktemp("tiny") / "bundle"
    compile_export(exported("qwen3", "q8"), bundle)
    with forerun.load(bundle, threads=2) as model:
        yield model


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    prompt=st.lists(st.integers(0, 287), min_size=1, max_size=30),
    drafter=st.one_of(
        st.sampled_from(["lookup:min_ngram=1,branches=2", "self:layers=1", "self:skip=a1+f0"]),
        st.integers(0, 99),
    ),
    temperature=st.sampled_from([0.0, 0.8, 2.0]),
    seed=st.integers(0, 1000),
    threads=st.sampled_from([1, 2]),
)
def test_compiled_kernels_never_change_a_token(
    tiny: Model, prompt: list[int], drafter: str | int, temperature: float, seed: int, threads: int
) -> None:
    options = {"max_tokens": 24, "temperature": temperature, "seed": seed, "ignore_end": True}
    plain = tiny.generate(prompt, threads=2, **options).complete()
    chosen = RandomTrees(drafter) if isinstance(drafter, int) else drafter
    assert tiny.generate(prompt, threads=threads, drafter=chosen, **options).complete().ids == plain.ids


def test_one_function_a_distinct_module(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    report = compile_export(exported("llama-tied", "q4"), tmp_path / "bundle")
    assert set(report.modules) == {"Embed", "Attention", "FeedForward", "Head"}
    source = (tmp_path / "bundle" / "src" / "program.c").read_text()
    assert source.count("static void attention(") == 1
    assert any("matmul_float declined" in line or "→" in line for line in report.explanation)


def test_a_bundle_holds_its_text(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    report = compile_export(exported("llama-tied", "q4"), tmp_path / "bundle")
    language = read_language(read_bundle(tmp_path / "bundle"))
    text = NativeText(LoadedProgram(tmp_path / "bundle"))
    assert not report.notes and language.chat_template is not None
    assert text.encode("hehe<|im_end|>") == language.tokenizer.encode("hehe<|im_end|>")
    messages = [{"role": "user", "content": "he"}]
    assert text.chat_prompt(messages) == language.chat_template.render(messages)


def test_a_text_that_the_core_does_not_know_is_left_out(
    exported: Callable[[str, str], Path], tmp_path: Path
) -> None:
    strange = Path(shutil.copytree(exported("llama-tied", "q4"), tmp_path / "strange"))
    document = json.loads((strange / "tokenizer.json").read_text())
    document["normalizer"] = {"type": "Lowercase"}
    (strange / "tokenizer.json").write_text(json.dumps(document))
    report = compile_export(strange, tmp_path / "bundle")
    assert "normalizer has Lowercase" in report.notes[0] and report.notes[0] in report.explanation
    assert "text.bin" not in read_bundle(tmp_path / "bundle").files
    with pytest.raises(BundleError, match="normalizer has Lowercase"):
        NativeText(LoadedProgram(tmp_path / "bundle"))


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_errors_leave_nothing_behind(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    export = exported("llama-tied", "q4")
    broken = tmp_path / "broken"
    shutil.copytree(export, broken)
    (broken / "model.onnx").write_bytes((export / "model.onnx").read_bytes()[:200])
    old = tmp_path / "old"
    shutil.copytree(export, old)
    settings = json.loads((old / "export.json").read_text())
    (old / "export.json").write_text(json.dumps({**settings, "version": 99}))
    partial = tmp_path / "partial"
    shutil.copytree(export, partial)
    config = {key: value for key, value in settings["config"].items() if key != "layers"}
    (partial / "export.json").write_text(json.dumps({**settings, "config": config}))
    cut = tmp_path / "cut"
    shutil.copytree(export, cut)
    (cut / "model.onnx.data").write_bytes((export / "model.onnx.data").read_bytes()[:5000])
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("keep me")
    (tmp_path / "file").write_text("")
    before = entries(tmp_path)
    cases: list[tuple[type[ForerunError], str, Path, Path, dict]] = [
        (CompileError, "is no export", tmp_path / "nowhere", tmp_path / "b", {}),
        (CompileError, "damaged", broken, tmp_path / "b", {}),
        (CompileError, "version 99", old, tmp_path / "b", {}),
        (CompileError, "lacks layers", partial, tmp_path / "b", {}),
        (CompileError, "cannot be read", cut, tmp_path / "b", {}),
        (TargetError, "known targets", export, tmp_path / "b", {"target": "z80"}),
        (OptionError, "f16, f32", export, tmp_path / "b", {"kv": "f8"}),
        (OutputError, "did not write", export, foreign, {}),
        (OutputError, "no folder", export, tmp_path / "file", {}),
        (OutputError, "cannot write", export, tmp_path / "file" / "b", {}),
    ]
    for kind, message, source, output, options in cases:
        with pytest.raises(kind, match=message):
            compile_export(source, output, **options)
        assert entries(tmp_path) == before
    assert (foreign / "thesis.txt").read_text() == "keep me"


def test_a_full_disk_is_said_and_leaves_the_old_bundle(
    exported: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    compile_export(exported("llama-tied", "q4"), bundle)
    manifest = (bundle / "manifest.json").read_bytes()

    def full(self: WeightsFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WeightsFile, "_append", full)
    with pytest.raises(OutputError, match="disk is full"):
        compile_export(exported("llama-tied", "q8"), bundle)
    assert entries(tmp_path) == {"bundle"}
    assert (bundle / "manifest.json").read_bytes() == manifest


def test_interrupting_leaves_nothing(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    def interrupt(stage: str, done: float) -> None:
        if done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_export(exported("llama-tied", "q4"), tmp_path / "bundle", progress=interrupt)
    assert entries(tmp_path) == set()


def test_tvm_tensorize_still_works() -> None:
    """The pin of TVM's ffi is what keeps this from crashing: newer ones segfault in Schedule.tensorize."""
    program = (
        "import tvm\n"
        "from tvm import s_tir, te\n"
        "a = te.placeholder((16, 16), name='a')\n"
        "b = te.compute((16, 16), lambda i, j: a[i, j] + 1.0, name='b')\n"
        "schedule = s_tir.Schedule(te.create_prim_func([a, b]))\n"
        "print(type(schedule.get_loops(schedule.get_sblock('b'))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
