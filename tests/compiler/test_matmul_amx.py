"""AMX kernels: compiled as they are, run by the emulator, bit for bit those of the vector kernels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from amx_emulation import Emulator
from kernel_runner import RUNNABLE, Kernels, aligned, placed
from test_matmul import activations, arguments, constant_activations, dense, linear, stored
from tiny_models import VARIANTS, write_folder

from forerun.compiler import compile_export
from forerun.compiler.native import write_object
from forerun.compiler.operations import Linear, LinearSwiGlu, WeightRows
from forerun.compiler.schedules import RULES
from forerun.compiler.schedules.matmul_rules import kernels_name, stacked_rows
from forerun.compiler.schedules.plan import Decline, Plan, Settings
from forerun.compiler.schedules.tiling import Tiling, default_tiling
from forerun.compiler.schemes import AFFINE4, SYMMETRIC4, SYMMETRIC6, SYMMETRIC8, Scheme
from forerun.compiler.tune.search import find_matmuls, tuning_settings
from forerun.errors import OptionError
from forerun.export import export_model
from forerun.runtime.session import LoadedProgram, Session
from forerun.targets import TARGETS, Target, detect_target

AMX, VNNI = TARGETS["x86-64-amx"], TARGETS["x86-64-avx512-vnni"]
MATRIX = Tiling(8, 8192, (), 16)
SCHEMES = (AFFINE4, SYMMETRIC4, SYMMETRIC6, SYMMETRIC8)

# The kernels' other instructions are AVX-512's.
pytestmark = pytest.mark.skipif(VNNI not in RUNNABLE, reason="needs AVX512-VNNI beside the emulated AMX")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulator"))


def plan_of(target: Target, operation: Linear | LinearSwiGlu, tiling: Tiling) -> Plan:
    """Return the plan of the target's first rule for quantized matmuls that takes the operation."""
    settings = Settings(target, "float16", 64, tuned={kernels_name(operation): tiling})
    plans = (RULES[rule]().apply(operation, settings) for rule in target.rules["matmul"])
    return next(plan for plan in plans if not isinstance(plan, Decline))


def swiglu(scheme: Scheme, columns: int, inputs: int, *, quantized: bool) -> LinearSwiGlu:
    parts = tuple(stored(scheme, 1, 32, np.random.default_rng(0)))
    gate, up = (
        WeightRows(scheme, tuple(f"{side}.{part}" for part in parts), columns, inputs)
        for side in ("gate", "up")
    )
    return LinearSwiGlu(gate, up, quantized=quantized)


def operation_of(kind: str, scheme: Scheme, rng: np.random.Generator) -> Linear | LinearSwiGlu:
    """Return an operation of random size whose results are handled as `kind` says."""
    columns, inputs = int(rng.integers(1, 90)), 32 * int(rng.integers(1, 7))
    if kind.startswith("swiglu"):
        return swiglu(scheme, 32 * int(rng.integers(1, 4)), inputs, quantized=kind == "swiglu quantized")
    plain = linear(scheme, columns, inputs, add="add" in kind, bias="bias" in kind)
    if kind == "maxima":
        return replace(plain, head="maxima")
    if kind == "side by side":
        return replace(plain, stride=columns + 24, first_column=8)
    return plain


def random_weights(operation: Linear | LinearSwiGlu, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return arrays for every part that the operation names."""
    weights = {"bias": rng.standard_normal(operation_columns(operation)).astype(np.float32)}
    for rows in stacked_rows(operation):
        parts = stored(rows.scheme, rows.columns, rows.inputs, rng)
        weights |= dict(zip(rows.parts, parts.values(), strict=True))
    return weights


def operation_columns(operation: Linear | LinearSwiGlu) -> int:
    return sum(rows.columns for rows in stacked_rows(operation))


def outputs_of(operation: Linear | LinearSwiGlu, rows: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return arrays that a kernel writes to, with something in them and a row to spare."""
    if isinstance(operation, Linear):
        width = operation.stride
        return [placed(rng.standard_normal((rows + 1, width)).astype(np.float32))]
    columns = operation.gate.columns
    if not operation.quantized:
        return [aligned((rows + 1, columns), np.float32)]
    kinds = ((1, np.int8), (1, np.int8), (16, np.float32), (16, np.int32), (16, np.int32), (32, np.float32))
    return [aligned((rows + 1, columns // size), dtype) for size, dtype in kinds]


KINDS = ("plain", "add bias", "side by side", "maxima", "swiglu quantized", "swiglu float")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_tiles_give_the_bits_of_the_vector_kernels(
    emulator: Emulator, scheme: Scheme, kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    operation = operation_of(kind, scheme, rng)
    weights = random_weights(operation, rng)
    plan = plan_of(AMX, operation, MATRIX)
    tile, eight = plan.kernels[16], plan_of(VNNI, operation, Tiling(8, 8192)).kernels[8]
    kernels, vector = Kernels([tile], AMX, tmp_path / "amx"), Kernels([eight], VNNI, tmp_path / "vnni")
    groups = stacked_rows(operation)[0].inputs // 32
    blocks = -(-operation_columns(operation) // 16)
    for rows in sorted({1, 8, 9, 16, 17, int(rng.integers(1, 41)), int(rng.integers(17, 41))}):
        x, _ = activations(rows, groups * 32, scheme, rng)
        start = outputs_of(operation, rows, rng)
        results = []
        for library, name, threads in (
            (vector, eight.name, 1),
            (kernels, tile.name, 1),
            (kernels, tile.name, 3),
        ):
            out, before = [placed(array) for array in start], emulator.counts()
            with emulator.running():
                library.call(name, *arguments(plan, x, weights, out), rows=rows, threads=threads)
            results.append(out)
            done = {key: count - before[key] for key, count in emulator.counts().items()}
            calls = threads if library is kernels else 0
            assert (done["configure"], done["release"]) == (calls, calls) and not emulator.configured()
            # Of a group: two halves, 8 rows at a time, and both bytes of wide activations.
            products = 4 * (2 if scheme.wide else 1) * groups * blocks * -(-rows // 16)
            assert done["multiply"] == (products if library is kernels else 0)
        for other in results[1:]:
            pairs = zip(results[0], other, strict=True)
            assert all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in pairs), rows


@pytest.mark.parametrize("weight", ("least", "most"))
@pytest.mark.parametrize("value", (-128, 127))
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_extreme_integers_neither_saturate_nor_wrap(
    emulator: Emulator, scheme: Scheme, value: int, weight: str, tmp_path: Path
) -> None:
    unsigned = np.full((16, 32), 0 if weight == "least" else 2**scheme.bits - 1)
    parts = {"q": (unsigned - scheme.offset).astype(np.uint8 if scheme.affine else np.int8)}
    parts["scale"] = np.ones((16, scheme.scales), np.float16)
    if scheme.affine:
        parts["minimum"] = np.zeros((16, 1), np.float16)
    one_row, floats = constant_activations(value, 32, scheme.wide)
    x = {name: placed(np.repeat(array, 16, axis=0)) for name, array in one_row.items()}
    plan = plan_of(AMX, linear(scheme, 16, 32), MATRIX)
    kernels, out = Kernels([plan.kernels[16]], AMX, tmp_path), aligned((16, 16), np.float32)
    with emulator.running():
        kernels.call(plan.kernels[16].name, *arguments(plan, x, parts, [out]), rows=16)
    assert np.array_equal(out, np.tile(dense(parts) @ floats, (16, 1)))


def test_without_tuning_the_target_is_the_one_without_the_unit(tmp_path: Path) -> None:
    """The same kernels, and the same object code: the unit changes nothing until a machine asked for it."""
    for operation in (linear(AFFINE4, 40, 96), swiglu(SYMMETRIC8, 32, 64, quantized=True)):
        objects = []
        for target in (AMX, VNNI):
            plan = plan_of(target, operation, default_tiling(target))
            assert list(plan.kernels) == list(range(1, 9))
            write_object(plan.kernels.values(), target, tmp_path / f"{target.name}.o")
            objects.append((tmp_path / f"{target.name}.o").read_bytes())
        assert objects[0] == objects[1]


def test_the_unit_is_refused_where_there_is_none() -> None:
    operation = linear(AFFINE4, 32, 64)
    declined = RULES["matmul_amx"]().apply(operation, Settings(AMX, "float16", 64))
    assert isinstance(declined, Decline) and "forerun tune" in declined.reason
    declined = RULES["matmul_amx"]().apply(linear(AFFINE4, 32, 48), amx_settings(32, 48))
    assert isinstance(declined, Decline) and "48" in declined.reason
    with pytest.raises(OptionError, match="matrix_rows is 16; allowed for x86-64-avx512-vnni: 0"):
        plan_of(VNNI, operation, MATRIX)


def amx_settings(columns: int, inputs: int) -> Settings:
    return Settings(AMX, "float16", 64, {kernels_name(linear(AFFINE4, columns, inputs)): MATRIX})


def test_a_machine_with_amx_is_not_given_it_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forerun.targets.detect.cpu_features", lambda: frozenset(AMX.features))
    assert detect_target() is VNNI


@pytest.fixture(scope="module", params=("q4", "q8"))
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    write_folder(root / "model", seed=3, **VARIANTS["llama-tied"])
    return export_model(root / "model", root / "export", request.param).directory


def without_features(bundle: Path) -> None:
    """Take what a bundle asks of the processor out of its manifest, and vouch for it anew."""
    first, _, text = (bundle / "manifest.json").read_bytes().partition(b"\n")
    body = json.loads(text.rstrip()[:-1])
    assert {"amx_tile", "amx_int8"} < set(body["targets"][AMX.name]["features"])
    body["targets"][AMX.name]["features"] = list(VNNI.features)
    vouched = (json.dumps(body) + "}\n").encode()
    old = json.loads(first + b"null}")["xxh64"].encode()
    new = xxhash.xxh64_hexdigest(vouched).encode()
    (bundle / "manifest.json").write_bytes(first.replace(old, new) + b"\n" + vouched)


def forwards(bundle: Path, calls: list[list[int]]) -> list[np.ndarray]:
    """Return each call's logits, then the keys and values of all that was committed."""
    program = LoadedProgram(bundle)
    session = Session(program, threads=2)
    results = []
    for tokens in calls:
        sequence = session.create_sequence()
        rows = list(session.stage(sequence, tokens))
        results.append(session.forward([(sequence, row) for row in rows]).logits.copy())
        session.commit(sequence, rows)
        for layer in range(program.config.layers):
            results += [array.copy() for array in session.read_kv(sequence, layer, 0, len(rows))]
        session.release_sequence(sequence)
    session.close()
    program.close()
    return results


def test_a_bundle_with_the_unit_gives_the_bits_of_one_without(
    emulator: Emulator, export: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    few_kernels = Tiling(2, 8192)  # they take most of the time
    names = [matmul.name for matmul in find_matmuls(export, tuning_settings(AMX))]
    tuned = {name: replace(few_kernels, matrix_rows=16) for name in names}
    report = compile_export(export, tmp_path / "amx", AMX.name, tuned=tuned)
    assert set(report.tuned) == set(tuned) and len(tuned) >= 5
    assert any("→ matmul_amx" in line for line in report.explanation)
    compile_export(export, tmp_path / "vnni", VNNI.name, tuned=dict.fromkeys(names, few_kernels))
    without_features(tmp_path / "amx")
    calls = [rng.integers(0, 288, rows).tolist() for rows in range(1, 41)]
    before = emulator.counts()["multiply"]
    # Not around more than this: libraries that load with the compiler set the signal's action as well.
    with emulator.running():
        few = forwards(tmp_path / "amx", calls[:8])
        assert emulator.counts()["multiply"] == before, "calls of few rows keep the vector kernels"
        many = forwards(tmp_path / "amx", calls[8:])
    assert emulator.counts()["multiply"] > before
    for one, other in zip([*few, *many], forwards(tmp_path / "vnni", calls), strict=True):
        assert np.array_equal(one.view(np.uint8), other.view(np.uint8))
