"""forerun tune on devices: the search, what it keeps, and how compile uses it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_tuning import TILINGS, kernel_numbers, runnable, write_export
from test_device_bundles import DEVICES, needs_device
from test_gpu_build import rows_of

from forerun.cli import main
from forerun.compiler.graph import Node
from forerun.compiler.operations import Linear, LinearSwiGlu
from forerun.compiler.schedules import RULES
from forerun.compiler.schedules.plan import Plan, Settings
from forerun.compiler.schedules.tiling import Tiling, default_tiling
from forerun.compiler.schemes import SYMMETRIC8
from forerun.compiler.tune import device_harness, load_tuning, measured_on, race, save_tuning
from forerun.compiler.tune.device_search import DeviceSearch
from forerun.compiler.tune.race import Found
from forerun.compiler.tune.search import ROWS, Matmul, find_matmuls, tuning_settings
from forerun.compiler.tune.store import Tuning, kernel_digest
from forerun.errors import ForerunError, OptionError, TargetError
from forerun.runtime.devices import find_device
from forerun.runtime.library import Status, load_library
from forerun.runtime.trial import NativeTrialArray
from forerun.targets import TARGETS, detect_target
from forerun.targets.gpu import GpuArithmetic, GpuTarget
from forerun.targets.opencl import ADRENO, OPENCL


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a tiny random model with 4-bit weights."""
    return write_export(tmp_path_factory.mktemp("tune"))


@pytest.fixture(scope="module", params=DEVICES)
def target(request: pytest.FixtureRequest) -> GpuTarget:
    return runnable(request.param)


@pytest.fixture
def opencl() -> GpuTarget:
    needs_device("opencl")
    return OPENCL


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of as few calls, over as little memory, as can be."""
    monkeypatch.setattr(race, "ROUNDS", 1)
    monkeypatch.setattr(race, "ROUND_SECONDS", 1e-5)
    monkeypatch.setattr(device_harness, "WORKING_SET", 1 << 16)


def test_the_search_runs_on_the_device(target: GpuTarget, export: Path, quick: None) -> None:
    settings = tuning_settings(target)
    matmuls = find_matmuls(export, settings)
    assert len({one.name for one in matmuls}) == len(matmuls) >= 4
    heads = [one.node.detail.head for one in matmuls if isinstance(one.node.detail, Linear)]
    assert heads.count("maxima") == 1 and "blocks" not in heads
    seen: list[float] = []
    gated = next(one for one in matmuls if isinstance(one.node.detail, LinearSwiGlu))
    search = DeviceSearch(settings, 600.0, lambda what, part: seen.append(part))
    found = list(search.run([gated, matmuls[-1]]))
    assert [one.name for one in found] == [gated.name, matmuls[-1].name] and seen == sorted(seen)
    for one in found:
        assert set(one.before) == set(one.after) == {(rows, 0) for rows in ROWS}
        assert min(one.before.values()) > 0
        matmul = next(each for each in matmuls if each.name == one.name)
        assert matmul.plan(settings, one.tiling).tiling == one.tiling


@pytest.mark.parametrize("computes", (OPENCL.computes, ADRENO.computes), ids=("memory", "images"))
def test_weights_in_slabs_and_with_biases_are_given_room(
    computes: GpuArithmetic, opencl: GpuTarget, quick: None
) -> None:
    """A kernel that takes the number of its slab is tried on the first one."""
    small = replace(opencl, largest_piece=1 << 14, computes=computes)
    rows = rows_of(SYMMETRIC8, 528, 64)
    operation = Linear((rows,), ("bias",), 0, 528, add=False, head="maxima")
    settings = tuning_settings(small)
    plan = RULES["gpu_matmul"]().apply(operation, settings)
    assert isinstance(plan, Plan) and 0 < plan.slab_blocks < 33
    matmul = Matmul(plan.numbers_name, "Head", Node("linear", [], [], operation))
    (found,) = DeviceSearch(settings, 600.0, lambda *_: None).run([matmul])
    assert found.name == "linear_symmetric8_528x64_bias"


@pytest.mark.parametrize("gain", (0.9, 0.99))
def test_numbers_change_only_where_that_is_clearly_faster(
    gain: float, opencl: GpuTarget, export: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timings are made up: 64 threads, one block and tiles of 4 rows are each 10 % or 1 % faster."""
    tried: set[Tiling] = set()

    def seconds(self: object, tiling: Tiling, point: tuple[int, int]) -> float:
        tried.add(tiling)
        return gain ** ((tiling.threads == 64) + (tiling.blocks == 1) + (tiling.tile_rows == 4))

    monkeypatch.setattr(device_harness.DeviceHarness, "seconds", seconds)
    settings = tuning_settings(opencl)
    matmuls = find_matmuls(export, settings)
    stored = next(one for one in matmuls if isinstance(one.node.detail, Linear))
    gated = next(one for one in matmuls if isinstance(one.node.detail, LinearSwiGlu))
    found = list(DeviceSearch(settings, 600.0, lambda *_: None).run([stored, gated]))
    if gain == 0.9:
        assert [one.tiling for one in found] == [TILINGS[0], replace(TILINGS[0], blocks=2)]
        assert found[0].speedup() > found[1].speedup() > 1.2
    else:
        assert [one.tiling for one in found] == [default_tiling(opencl)] * 2
        assert {tiling.tile_rows for tiling in tried} == {2, 4, 8}


def test_the_search_ends_with_its_time(opencl: GpuTarget, export: Path) -> None:
    settings = tuning_settings(opencl)
    search = DeviceSearch(settings, 1e-6, lambda *_: None)
    assert not list(search.run(find_matmuls(export, settings)))


def test_what_is_found_is_kept_for_compile(
    opencl: GpuTarget,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where the search is interrupted."""

    def run(self: DeviceSearch, matmuls: list[Matmul]) -> Iterator[Found]:
        yield Found(matmuls[0].name, TILINGS[0], {(1, 0): 10.0}, {(1, 0): 5.0})
        raise KeyboardInterrupt

    monkeypatch.setattr(DeviceSearch, "run", run)
    command = ["tune", str(export), "--target", "opencl", "--tuning", str(tmp_path)]
    assert main(command) == 130
    assert measured_on(opencl) == find_device("opencl")
    assert f"measured on {find_device('opencl')}" in capsys.readouterr().out
    known = load_tuning(tmp_path, opencl)
    assert list(known.tilings.values()) == [TILINGS[0]] and known.note is None
    (measured,) = known.measured.values()
    assert measured == {"default": {"rows 1": 10.0}, "tuned": {"rows 1": 5.0}}
    bundle = ["compile", str(export), "-o", str(tmp_path / "bundle"), "--target", "opencl"]
    assert main([*bundle, "--tuning", str(tmp_path)]) == 0
    assert "tuned on this machine: linear_" in capsys.readouterr().out
    assert sum(numbers["tuned"] for numbers in kernel_numbers(tmp_path / "bundle").values()) == 1
    assert main([*command, "--threads", "2"]) == 2
    assert "--threads is for targets of the CPU" in capsys.readouterr().err


def test_the_verb_searches_and_prints(
    opencl: GpuTarget, export: Path, quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", str(export), "--target", "opencl", "--tuning", str(tmp_path)]
    assert main(command) == 0
    told = capsys.readouterr().out
    known = load_tuning(tmp_path, opencl)
    assert len(known.tilings) >= 4 and all(name in told for name in known.tilings)
    assert "blocks" in told and ", 0 left out" in told
    assert main(command) == 0
    assert f"0 measured, {len(known.tilings)} known before, 0 left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    (
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"blocks": 1', '"blocks": 3'),
        lambda text: text.replace('"threads": 64', '"threads": true'),
        lambda text: text.replace('"threads": 64', '"threads": 0'),
        lambda text: text.replace('"blocks": 1, ', "").replace('"blocks": 1,', ""),
        lambda text: text.replace('"device": "', '"device": "another '),
        lambda text: text.replace('"kernels": "', '"kernels": "0'),
        lambda text: text.replace('"target": "opencl"', '"target": "webgpu"'),
    ),
)
def test_a_file_of_no_use_is_ignored_with_a_note(opencl: GpuTarget, tmp_path: Path, damage: Any) -> None:
    path = save_tuning(tmp_path, opencl, Tuning({"linear_a": TILINGS[0]}))
    assert load_tuning(tmp_path, opencl).tilings == {"linear_a": TILINGS[0]}
    text = path.read_text(encoding="utf-8")
    assert damage(text) != text
    path.write_text(damage(text), encoding="utf-8")
    loaded = load_tuning(tmp_path, opencl)
    assert not loaded.tilings and f"{path} is ignored" in str(loaded.note)


def test_numbers_of_the_cpu_are_none_of_a_device(opencl: GpuTarget, tmp_path: Path) -> None:
    path = save_tuning(tmp_path, opencl, Tuning({"linear_a": Tiling(8, 4096)}))
    assert "threads is 0; allowed for opencl: 1 to 256" in str(load_tuning(tmp_path, opencl).note)
    assert path.name.startswith("opencl-")
    cpu = detect_target()
    save_tuning(tmp_path, cpu, Tuning({"linear_a": TILINGS[0]}))
    assert "threads is 64; allowed for" in str(load_tuning(tmp_path, cpu).note)
    with pytest.raises(OptionError, match="threads is 256; allowed for opencl: 1 to 64"):
        Settings(replace(opencl, workgroup_threads=64), "float16", 64, {"a": TILINGS[2]}).tiling("a")
    assert kernel_digest(opencl) != kernel_digest(cpu)


def test_another_device_has_its_own_numbers(
    opencl: GpuTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_tuning(tmp_path, opencl, Tuning({"linear_a": TILINGS[0]}))
    other = path.rename(path.with_name("opencl-0123456789ab.json"))
    note = f"{other} is ignored: it is for another device than {find_device('opencl')}"
    assert load_tuning(tmp_path, opencl) == Tuning(note=note)
    assert load_tuning(tmp_path, TARGETS["opencl-arm64"]) == Tuning()
    monkeypatch.setenv("FORERUN_DEVICE", "no such GPU")
    told = load_tuning(tmp_path, opencl).note
    assert told is not None and "no such GPU in its name (FORERUN_DEVICE)" in told
    assert load_tuning(tmp_path / "none", opencl) == Tuning()


def test_the_device_can_be_chosen(
    opencl: GpuTarget,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By a part of its name, for the search and for what compile takes."""
    name = find_device("opencl")
    monkeypatch.setenv("FORERUN_DEVICE", "no such GPU")
    command = ["tune", str(export), "--target", "opencl", "--tuning", str(tmp_path), "--seconds", "1e-6"]
    assert main([*command, "--device", name[:5]]) == 0
    assert f"measured on {name}" in capsys.readouterr().out
    monkeypatch.setenv("FORERUN_DEVICE", "no such GPU")
    bundle = ["compile", str(export), "-o", str(tmp_path / "bundle"), "--target", "opencl"]
    for options, ignored in ((["--device", name], False), (["--device", "another"], True)):
        assert main([*bundle, "--tuning", str(tmp_path), *options]) == 0
        assert ("is ignored" in capsys.readouterr().out) == ignored


def test_a_device_that_is_not_there(
    opencl: GpuTarget,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The one sentence of the runtime, and nothing is written."""
    monkeypatch.setenv("FORERUN_DEVICE", "no such GPU")
    with pytest.raises(TargetError) as raised:
        find_device("opencl")
    folder = tmp_path / "tuning"
    assert main(["tune", str(export), "--target", "opencl", "--tuning", str(folder)]) == 2
    assert capsys.readouterr().err.strip() == f"error: {raised.value}"
    assert not folder.exists()
    assert main(["tune", str(export), "--target", "opencl-arm64", "--tuning", str(folder)]) == 2
    assert "it is for aarch64" in capsys.readouterr().err


def test_trials_check_what_they_are_given(
    opencl: GpuTarget, export: Path, quick: None, tmp_path: Path
) -> None:
    settings, tiling = tuning_settings(opencl), default_tiling(opencl)
    matmul = find_matmuls(export, settings)[0]
    plan = matmul.plan(settings, tiling)
    library, made = load_library(), ctypes.c_void_p()
    with device_harness.DeviceHarness({tiling: plan}, (1,), 64, 1 << 16, opencl, tmp_path) as harness:
        assert harness.seconds(tiling, (1, 0)) > 0
        for kernel, rows, calls in ((1, 1, 1), (-1, 1, 1), (0, 0, 1), (0, 1, 0)):
            with pytest.raises(ForerunError, match="must be above 0") as raised:
                harness._trial.seconds(kernel, rows, max(calls, 1) if calls else 0)
            assert raised.value.status == Status.INVALID_ARGUMENT
        program = ctypes.c_void_p(harness._library.forerun_candidates())
        for bytes_, copies, count in ((6, 1, 1), (0, 1, 1), (4, -1, 1), (4, 1, 0), (4, 1, 1)):
            listed = (NativeTrialArray * 1)(NativeTrialArray(bytes_, copies))
            given = (program, ctypes.addressof(listed), count, ctypes.byref(made))
            assert library.forerun_trial_create(*given) == Status.INVALID_ARGUMENT, (bytes_, copies, count)
            assert made.value is None
    # Its last array alone is more than the device gives in one piece.
    with pytest.raises(ForerunError, match="what kernels are tried on") as raised:
        device_harness.DeviceHarness({tiling: plan}, (1,), 64, 1 << 52, opencl, tmp_path)
    assert raised.value.status == Status.OUT_OF_MEMORY
