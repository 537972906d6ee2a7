"""Bundles for devices with other numbers than the target's, as forerun tune may find them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_gpu_matmul
from device_runner import DEVICES as RUNNABLE
from device_tuning import TILINGS, kernel_numbers, runnable, write_export
from histories import append, check_draws, check_history
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_device_bundles import DEVICES
from tiny_models import VOCABULARY_SIZE

import forerun
from forerun.compiler import compile_export
from forerun.compiler.schedules.tiling import Tiling, check_tiling, default_tiling, read_tiling
from forerun.compiler.schemes import AFFINE4
from forerun.compiler.tune.search import find_matmuls, tuning_settings
from forerun.errors import OptionError
from forerun.runtime.session import LoadedProgram, Session
from forerun.targets import detect_target
from forerun.targets.cuda import SM_90
from forerun.targets.gpu import GpuTarget
from forerun.targets.opencl import OPENCL


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a tiny random model with 4-bit weights."""
    return write_export(tmp_path_factory.mktemp("tune"))


@pytest.fixture(scope="module", params=DEVICES)
def target(request: pytest.FixtureRequest) -> GpuTarget:
    return runnable(request.param)


@pytest.fixture(scope="module")
def tuned(target: GpuTarget, export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose matmuls all have other numbers than the target's."""
    names = [one.name for one in find_matmuls(export, tuning_settings(target))]
    numbers = {name: TILINGS[i % len(TILINGS)] for i, name in enumerate(names)}
    folder = tmp_path_factory.mktemp("tuned") / "bundle"
    report = compile_export(export, folder, target.name, also=(detect_target().name,), tuned=numbers)
    assert set(names) < set(report.tuned), "the forms of the head have its numbers"
    return folder


def test_numbers_that_a_target_has_no_kernels_for() -> None:
    """They come from a file, or from a search for another version of the target."""
    for tiling, number in (
        (Tiling(16, 0, blocks=1, threads=64), "tile_rows is 16"),
        (Tiling(4, 0), "threads is 0"),
    ):
        with pytest.raises(OptionError, match=f"m: {number}; allowed for opencl: .*; run forerun tune again"):
            check_tiling("m", tiling, OPENCL)
    check_tiling("m", Tiling(16, 0, blocks=1, threads=64), SM_90)


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: target.name)
@pytest.mark.parametrize(
    "tiling", TILINGS, ids=lambda tiling: "-".join(map(str, tiling.described().values()))
)
def test_numbers_keep_what_kernels_promise(
    target: GpuTarget, tiling: Tiling, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Tiles agree to the bit and are right; so do the forms of the head."""
    numbers = {"tile_rows": tiling.tile_rows, "workgroup_blocks": tiling.blocks}
    own = replace(target, workgroup_threads=tiling.threads, **numbers)
    assert default_tiling(own) == tiling
    test_gpu_matmul.test_any_tile_gives_the_same_correct_bits(own, AFFINE4, rng)
    test_gpu_matmul.test_forms_of_the_head_agree(own, AFFINE4, rng)
    test_gpu_matmul.test_blocks_for_each_row(own, AFFINE4, 5, rng)
    test_gpu_matmul.test_gated(own, AFFINE4, "silu", tmp_path, rng)


def test_a_bundle_is_built_with_what_was_found(
    target: GpuTarget, export: Path, tuned: Path, tmp_path: Path
) -> None:
    """Grids, workgroups and tiles are others; the device's logits differ in their last bits from the default's."""
    compile_export(export, tmp_path / "plain", target.name)
    kernels, plain = kernel_numbers(tuned), kernel_numbers(tmp_path / "plain")
    assert {**default_tiling(target).described(), "tuned": False} in plain.values()
    quantized = {name: numbers for name, numbers in kernels.items() if numbers["tuned"]}
    assert {read_tiling(numbers) for numbers in quantized.values()} == set(TILINGS)
    (head,) = (name.removesuffix("_maxima") for name in kernels if name.endswith("_maxima"))
    assert kernels[head] == kernels[f"{head}_maxima"] == kernels[f"{head}_blocks"]
    sources = [
        next((bundle / "src").glob(name)).read_text(encoding="utf-8")
        for bundle, name in ((tuned, f"{target.name}.c"), (tmp_path / "plain", "program.c"))
    ]
    for name, numbers in quantized.items():
        sizes = [rows for rows in (1, 2, 4, 8) if f'"{name}_rows{rows}_kernel"' in sources[0]]
        assert not sizes or max(sizes) == numbers["tile_rows"], name
        assert (f'"{name}_rows8_kernel"' in sources[1]) == bool(sizes), name
    ids, logits = list(range(40)), []
    for bundle in (tuned, tmp_path / "plain"):
        with LoadedProgram(bundle, target.name) as program, Session(program) as session:
            logits.append(append(session, session.create_sequence(), ids))
    assert logits[0].tobytes() != logits[1].tobytes()
    assert np.sqrt(((logits[0] - logits[1]) ** 2).mean()) < 0.05 * logits[1].std()


@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_row_is_the_same_in_any_company(
    target: GpuTarget, tuned: Path, tmp_path: Path, data: st.DataObject
) -> None:
    with LoadedProgram(tuned, target.name) as program, Session(program, sequences=3) as session:
        check_history(session, tmp_path, data)


@pytest.mark.parametrize("count", (1, 12, 20))
def test_draws_are_those_from_all_logits(
    target: GpuTarget, tuned: Path, count: int, rng: np.random.Generator
) -> None:
    with LoadedProgram(tuned, target.name) as program, Session(program) as session:
        check_draws(session, count, rng)


@pytest.mark.parametrize("temperature", (0.0, 1.0))
def test_no_drafter_changes_a_token(
    target: GpuTarget, tuned: Path, temperature: float, rng: np.random.Generator
) -> None:
    prompt = rng.integers(0, VOCABULARY_SIZE, 60).tolist() * 2
    options = {"max_tokens": 30, "temperature": temperature, "seed": 3, "ignore_end": True}
    with forerun.load(tuned, target=target.name) as model:
        plain = model.generate(prompt, **options).complete()
        for drafter in ("lookup:min_ngram=1,branches=2", "self:layers=1", "auto"):
            assert model.generate(prompt, drafter=drafter, **options).complete().ids == plain.ids
