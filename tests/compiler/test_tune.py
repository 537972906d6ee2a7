"""forerun tune: the search on a tiny model, what it keeps, and how compile uses it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_runner import RUNNABLE, Kernels, aligned
from test_matmul import activations, arguments, linear, plan_for, stored
from tiny_models import VARIANTS, write_folder

from forerun.compiler import compile_export
from forerun.compiler.graph import Node
from forerun.compiler.operations import Linear
from forerun.compiler.schedules import RULES
from forerun.compiler.schedules.matmul_rules import kernels_name
from forerun.compiler.schedules.plan import Decline, Settings
from forerun.compiler.schedules.tiling import MATRIX_ROWS, TILE_ROWS, Tiling, default_tiling, read_tiling
from forerun.compiler.schemes import AFFINE4, SYMMETRIC4, SYMMETRIC6, SYMMETRIC8, Scheme
from forerun.compiler.tune import harness, load_tuning, race, save_tuning, search, store
from forerun.compiler.tune.race import Found
from forerun.compiler.tune.search import Search, find_matmuls, tuning_settings
from forerun.compiler.tune.store import Tuning, measured_on, tuning_path
from forerun.errors import OptionError, OutputError, TargetError
from forerun.export import export_model
from forerun.targets import TARGETS, Target, find_runnable_target

TARGET = RUNNABLE[0]
TILING = Tiling(4, 4096, (1, 4), TARGET.matrix_rows)
TIMES = {(1, 1): 10.0, (4, 2): 20.0}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a tiny random model with 4-bit weights."""
    root = tmp_path_factory.mktemp("tune")
    write_folder(root / "model", seed=1, **VARIANTS["llama-tied"])
    return export_model(root / "model", root / "export", "q4").directory


@pytest.mark.parametrize(
    "scheme", (AFFINE4, SYMMETRIC4, SYMMETRIC6, SYMMETRIC8), ids=lambda scheme: scheme.name
)
@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: target.name)
def test_no_number_changes_a_bit(
    target: Target, scheme: Scheme, tmp_path: Path, rng: np.random.Generator
) -> None:
    operation = linear(scheme, 40, 96)
    weights, rows = stored(scheme, 40, 96, rng), int(rng.integers(1, 65))
    x, _ = activations(rows, 96, scheme, rng)
    name = "_".join(plan_for(target, operation).kernels[1].name.split("_")[:-1])
    results = []
    for place, tiling in enumerate((Tiling(8, 0), Tiling(4, 4096, (1, 2, 3, 4)), Tiling(2, 64, (2,)))):
        settings = Settings(target, "float16", 64, tuned={name: tiling})
        plans = (RULES[rule]().apply(operation, settings) for rule in target.rules["matmul"])
        plan = next(plan for plan in plans if not isinstance(plan, Decline))
        assert plan.tiling == tiling and list(plan.kernels) == list(range(1, tiling.tile_rows + 1))
        kernel = plan.kernels[tiling.tile_for(rows)]
        out = aligned((rows, 40), np.float32)
        kernels = Kernels([kernel], target, tmp_path / str(place))
        kernels.call(kernel.name, *arguments(plan, x, weights, [out]), rows=rows, threads=2)
        results.append(out.view(np.uint32))
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_tiles_end_within_the_most_rows() -> None:
    for tiling in (Tiling(most, 0, (), matrix) for most in TILE_ROWS for matrix in MATRIX_ROWS):
        for rows in range(1, 257):
            tile = tiling.tile_for(rows)
            assert tile in tiling.tiles and -(-rows // tile) * tile <= 256
            assert (tile == 16) == (tiling.matrix_rows == 16 and rows > 8)


@pytest.mark.parametrize(
    ("described", "word"),
    (
        ({"tile_rows": 3}, "tile_rows is 3"),
        ({"tile_rows": True}, "is no tiling"),
        ({"prefetch_bytes": -1}, "prefetch_bytes is -1"),
        ({"whole_groups": [5]}, "whole_groups"),
        ({"whole_groups": "all"}, "is no tiling"),
        ({"matrix_rows": 8}, "matrix_rows is 8"),
        ({"matrix_rows": None}, "is no tiling"),
    ),
)
def test_numbers_out_of_range_are_refused(described: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        read_tiling({**TILING.described(), **described})
    with pytest.raises(OptionError, match="is no tiling"):
        read_tiling({})
    assert read_tiling(TILING.described()) == TILING


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_tuning(tmp_path / "none", TARGET) == Tuning()
    known = Tuning().including(Found("linear_a", TILING, TIMES, dict.fromkeys(TIMES, 5.0)))
    path = save_tuning(tmp_path / "new" / "folder", TARGET, known)
    assert load_tuning(tmp_path / "new" / "folder", TARGET) == known
    assert known.measured["linear_a"]["default"] == {"rows 1, threads 1": 10.0, "rows 4, threads 2": 20.0}
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert load_tuning(tmp_path / "new" / "folder", replace(TARGET, name="other")) == Tuning()


def test_a_file_of_other_kernels_is_ignored_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tuning(tmp_path, TARGET, Tuning({"linear_a": TILING}))
    monkeypatch.setattr(store, "kernel_digest", lambda target: "0" * 16)
    loaded = load_tuning(tmp_path, TARGET)
    assert not loaded.tilings and "run forerun tune again" in str(loaded.note)


@pytest.mark.parametrize(
    "damage",
    (
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "\x00\xff",
        lambda text: text.replace('"tile_rows": 4', '"tile_rows": 5'),
        lambda text: text.replace('"matmuls": {', '"matmuls": 3, "old": {'),
        lambda text: text.replace('"cpu": "', '"cpu": "another '),
    ),
)
def test_a_damaged_file_is_ignored_with_a_note(tmp_path: Path, damage: Any) -> None:
    path = save_tuning(tmp_path, TARGET, Tuning({"linear_a": TILING}))
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    loaded = load_tuning(tmp_path, TARGET)
    assert not loaded.tilings and f"{path} is ignored" in str(loaded.note)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--tuning"):
        save_tuning(tmp_path / "file" / "folder", TARGET, Tuning())

    def refuse(*names: object) -> None:
        raise PermissionError(13, "Permission denied")

    save_tuning(tmp_path, TARGET, Tuning({"linear_a": TILING}))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        save_tuning(tmp_path, TARGET, Tuning())
    assert load_tuning(tmp_path, TARGET).tilings == {"linear_a": TILING}, "the old file is gone"
    assert not list(tmp_path.glob("*.partial"))


def test_the_search_measures_real_kernels_and_compile_uses_what_it_finds(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "working_set", lambda: 1 << 20)
    monkeypatch.setattr(race, "ROUND_SECONDS", 1e-5)
    monkeypatch.setattr(race, "ROUNDS", 1)
    settings = tuning_settings(TARGET)
    matmuls = find_matmuls(export, settings)
    assert len({one.name for one in matmuls}) == len(matmuls) >= 4
    seen: list[float] = []
    found = list(Search(settings, 2, 600.0, lambda what, part: seen.append(part)).run(matmuls[:1]))
    assert [one.name for one in found] == [matmuls[0].name] and seen == sorted(seen)
    assert set(found[0].before) == {(rows, threads) for rows in search.ROWS for threads in (1, 2)}
    tuned = {matmuls[0].name: TILING}
    report = compile_export(export, tmp_path / "tuned", TARGET.name, tuned={**tuned, "linear_other": TILING})
    assert report.tuned == (matmuls[0].name,)
    _, _, text = (tmp_path / "tuned" / "manifest.json").read_text(encoding="utf-8").partition("\n")
    kernels = json.loads(text.rstrip()[:-1])["kernels"]
    assert kernels[matmuls[0].name] == {**TILING.described(), "tuned": True}
    assert kernels[matmuls[1].name] == {**default_tiling(TARGET).described(), "tuned": False}


def test_weights_and_wide_outputs_are_given_room(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large vocabulary's head is more than three times the last cache; q may be written beside k and v."""
    rooms: list[int] = []

    def seconds(self: harness.Harness, *call: object) -> float:
        assert self.copies >= 1 and self.copies * self.size <= self.memory.size
        rooms.append(self._others.shape[1])
        return 1e-3

    monkeypatch.setattr(search, "working_set", lambda: 64)
    monkeypatch.setattr(harness.Harness, "seconds", seconds)
    settings = tuning_settings(TARGET)
    node = next(one.node for one in find_matmuls(export, settings) if isinstance(one.node.detail, Linear))
    detail = replace(node.detail, stride=5 * node.detail.columns, first_column=0)
    wide = Node(node.op, node.inputs, node.outputs, detail)
    matmul = search.Matmul(kernels_name(detail), "Wide", wide)
    assert len(list(Search(settings, 1, 600.0, lambda *_: None).run([matmul]))) == 1
    assert min(rooms) >= 4 * detail.stride * max(search.ROWS)


def test_the_search_ends_with_its_time_and_keeps_whole_results(export: Path) -> None:
    settings = tuning_settings(TARGET)
    assert not list(Search(settings, 1, 1e-6, lambda what, part: None).run(find_matmuls(export, settings)))


@pytest.mark.parametrize("faster", (True, False))
def test_numbers_change_only_where_that_is_clearly_faster(
    faster: bool, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timings are made up: the largest prefetch distance is 10 % or 1 % faster, whole groups are at 4 rows."""
    monkeypatch.setattr(search, "working_set", lambda: 1 << 20)
    monkeypatch.setattr(search._Rivals, "build", lambda self, tiling: None)

    def seconds(self: object, tiling: Tiling, point: tuple[int, int]) -> float:
        gain = 0.9 if faster else 0.99
        chosen = gain if tiling.prefetch_bytes == max(search.PREFETCH_BYTES) else 1.0
        tile = tiling.tile_for(point[0])
        return chosen * (gain if tile == 4 and 4 in tiling.whole_groups else 1.0)

    monkeypatch.setattr(search._Rivals, "seconds", seconds)
    settings = tuning_settings(TARGET)
    (one,) = Search(settings, 2, 600.0, lambda what, part: None).run(find_matmuls(export, settings)[:1])
    if faster:
        assert one.tiling.prefetch_bytes == max(search.PREFETCH_BYTES)
        assert set(one.tiling.whole_groups) == {2, 3, 4} and one.speedup() > 1.1
    else:
        assert one.tiling == default_tiling(TARGET) and one.speedup() == 1.0


@pytest.mark.parametrize(
    ("target", "gain", "used"),
    (("x86-64-amx", 0.9, True), ("x86-64-amx", 0.99, False), ("x86-64-avx512-vnni", 0.9, False)),
)
def test_the_matrix_unit_is_tried_where_there_is_one_and_kept_where_clearly_faster(
    target: str, gain: float, used: bool, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timings are made up: calls in tiles of 16 rows take `gain` of the time; one prefetch distance gains as well."""
    best = max(search.PREFETCH_BYTES)
    tried: set[int] = set()
    monkeypatch.setattr(search, "working_set", lambda: 1 << 20)
    monkeypatch.setattr(search._Rivals, "build", lambda self, tiling: tried.add(tiling.matrix_rows))

    def seconds(self: object, tiling: Tiling, point: tuple[int, int]) -> float:
        time = 0.9 if tiling.prefetch_bytes == best else 1.0
        return time * (gain if tiling.tile_for(point[0]) == 16 else 1.0)

    monkeypatch.setattr(search._Rivals, "seconds", seconds)
    settings = tuning_settings(TARGETS[target])
    (one,) = Search(settings, 2, 600.0, lambda what, part: None).run(find_matmuls(export, settings)[:1])
    assert tried == ({0, 16} if target == "x86-64-amx" else {0})
    matrix_rows = 16 if used else 0
    assert one.tiling == replace(
        default_tiling(TARGETS[target]), prefetch_bytes=best, matrix_rows=matrix_rows
    )


def test_interrupted_searches_keep_what_is_known(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from forerun.cli import main

    def run(self: Search, matmuls: list[search.Matmul]) -> Any:
        yield Found(matmuls[0].name, TILING, TIMES, TIMES)
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "working_set", lambda: 1 << 20)
    monkeypatch.setattr(Search, "run", run)
    command = ["tune", str(export), "--target", TARGET.name, "--tuning", str(tmp_path)]
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(load_tuning(tmp_path, TARGET).tilings.values()) == [TILING]
    bundle = ["compile", str(export), "-o", str(tmp_path / "bundle"), "--target", TARGET.name]
    assert main([*bundle, "--tuning", str(tmp_path)]) == 0
    assert "tuned on this machine: linear_" in capsys.readouterr().out
    assert main([*bundle, "--tuning", str(tmp_path), "--no-tuning"]) == 0
    assert "tuned" not in capsys.readouterr().out
    tuning_path(tmp_path, TARGET, measured_on(TARGET)).write_text("{")
    assert main([*bundle, "--tuning", str(tmp_path)]) == 0
    assert "is ignored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "word"), ((["--seconds", "0"], "--seconds"), (["--threads", "0"], "--threads"))
)
def test_options_out_of_range(
    export: Path, options: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from forerun.cli import main

    assert main(["tune", str(export), *options]) == 2
    assert word in capsys.readouterr().err


def test_the_working_set_is_larger_than_the_last_cache(tmp_path: Path) -> None:
    assert harness.working_set(tmp_path) == harness.LARGEST_SET // 2
    for index, size in enumerate(("48K", "2048K", "32768K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert harness.working_set(tmp_path) == 96 << 20


@pytest.mark.parametrize("answer", (0, -1))
def test_tiles_are_asked_for_before_they_are_measured(answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    amx, asked = TARGETS["x86-64-amx"], list[tuple[int, ...]]()

    class System:
        def syscall(self, *given: int) -> int:
            asked.append(given)
            return answer

    monkeypatch.setattr("forerun.targets.detect.cpu_features", lambda: frozenset(amx.features))
    monkeypatch.setattr("forerun.targets.detect.ctypes.CDLL", lambda name, use_errno: System())
    if answer == 0:
        assert find_runnable_target(amx.name) is amx
    else:
        with pytest.raises(TargetError, match="does not let this process use amx_tile"):
            find_runnable_target(amx.name)
    assert asked == [(158, 0x1023, 18)]
    assert find_runnable_target("x86-64-avx512-vnni").matrix_rows == 0 and len(asked) == 1


def test_targets_that_cannot_run_here_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forerun.targets.detect.cpu_features", frozenset[str])
    with pytest.raises(TargetError, match="cannot run here: this CPU lacks"):
        find_runnable_target(TARGETS["x86-64-v3"].name)
