"""Weights in slabs, for devices whose largest piece of memory is smaller than a matrix: the bits of the whole one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from histories import append
from test_device_bundles import compile_tiny, needs_device
from tiny_models import VOCABULARY_SIZE

import forerun
from forerun import targets
from forerun.compiler import pipeline
from forerun.compiler.gpu.slabs import slabs_of
from forerun.compiler.schemes import AFFINE4, FLOAT32, SYMMETRIC8
from forerun.errors import CompileError
from forerun.runtime.session import LoadedProgram, Session
from forerun.targets import TARGETS
from forerun.targets.gpu import GpuTarget
from forerun.targets.opencl import OPENCL


def test_slabs_cover_a_matrix_and_fit() -> None:
    for target, columns, inputs, scheme in (
        (OPENCL, 128256, 4096, AFFINE4),
        (OPENCL, 262144, 640, SYMMETRIC8),
        (replace(OPENCL, largest_piece=1 << 16), 999, 64, FLOAT32),
    ):
        slabs = slabs_of(target, columns, inputs, scheme)
        block_bytes = 16 * inputs * (scheme.bits or 32) // 8
        assert slabs.count > 1 and (slabs.count - 1) * slabs.each < slabs.blocks <= slabs.count * slabs.each
        assert slabs.each % 4 == 0 and slabs.each * block_bytes <= target.largest_piece
    assert slabs_of(OPENCL, 49152, 576, SYMMETRIC8).count == 1
    with pytest.raises(CompileError, match="64 columns of a matrix take"):
        slabs_of(replace(OPENCL, largest_piece=1 << 10), 999, 64, FLOAT32)


def results_of(bundle: Path, target: str, ids: list[int]) -> tuple[bytes, list[int], list[int]]:
    """Return a text's logits and two answers to it, drawn and greedy."""
    with LoadedProgram(bundle, target) as program, Session(program) as session:
        logits = append(session, session.create_sequence(), ids, 40)
    with forerun.load(bundle, target=target) as model:
        settings = {"max_tokens": 24, "ignore_end": True, "temperature": 0.8, "seed": 3}
        drawn = model.generate(ids, drafter="lookup:min_ngram=1", **settings).complete().ids
        greedy = model.generate(ids, max_tokens=24, ignore_end=True).complete().ids
    return logits.tobytes(), drawn, greedy


@pytest.mark.parametrize(("name", "quant", "piece"), (("webgpu", "q4", 4096), ("opencl", "f32", 24576)))
def test_a_model_in_slabs_computes_the_same_bits(
    name: str,
    quant: str,
    piece: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
) -> None:
    """Head and table in five slabs, the last one smaller; the gated matmul in two or three."""
    needs_device(name)
    whole = TARGETS[name]
    assert isinstance(whole, GpuTarget)
    small = replace(whole, largest_piece=piece)
    bundles = {"whole": compile_tiny(tmp_path / "whole", name, "qwen2", quant, "f16")}
    for module in (targets, pipeline):
        monkeypatch.setattr(module, "TARGETS", {**TARGETS, name: small})
    bundles["slabs"] = compile_tiny(tmp_path / "slabs", name, "qwen2", quant, "f16")
    source = (bundles["slabs"] / "src" / f"{name}.c").read_text()
    assert {f"{{FORERUN_GIVEN_CONSTANT, {slab}}}" for slab in range(5)} <= set(
        re.findall(r"\{FORERUN_GIVEN_CONSTANT, \d+\}", source)
    )
    ids = rng.integers(0, VOCABULARY_SIZE, 90).tolist()
    assert results_of(bundles["slabs"], name, ids) == results_of(bundles["whole"], name, ids)
