"""Bundles for devices, run by the core: the same sessions and loops as on the CPU, and what may go wrong."""

from __future__ import annotations

import ctypes
import json
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conformance import check_conformance
from histories import append, check_history
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loop_helpers import RandomTrees
from tiny_drafts import write_draft
from tiny_models import VARIANTS, VOCABULARY_SIZE, write_folder

import forerun
from forerun.cli.info import try_target
from forerun.compiler import compile_export
from forerun.compiler.bundle import describe_file, write_manifest_body
from forerun.compiler.link import link
from forerun.errors import ForerunError, TargetError
from forerun.export import export_model
from forerun.runtime.bundle import read_bundle
from forerun.runtime.devices import find_device
from forerun.runtime.library import Status, load_library
from forerun.runtime.model import Model
from forerun.runtime.session import LoadedProgram, Session
from forerun.targets import ALL_DEVICES, PLATFORMS, detect_target
from forerun.targets.detect import cpu_features, why_not

# Those in machines like this one.
DEVICES = [
    target.name for target in ALL_DEVICES if why_not(target, cpu_features(), platform.machine()) is None
]
CONTEXT = 640


def needs_device(name: str) -> None:
    """Skip the test if this machine has no device for the target."""
    target = next(one for one in ALL_DEVICES if one.name == name)
    try:
        find_device(target.device)
    except TargetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=DEVICES)
def target(request: pytest.FixtureRequest) -> str:
    needs_device(request.param)
    return str(request.param)


def compile_tiny(folder: Path, target: str, variant: str, quant: str, kv: str, **others: int) -> Path:
    """Write a bundle for the device and the CPU; `others` are settings of config.json."""
    changes = {**VARIANTS[variant], "max_position_embeddings": CONTEXT, **others}
    export = export_model(
        write_folder(folder / "source", seed=11, **changes), folder / "export", quant
    ).directory
    cpu = detect_target().name
    compile_export(export, folder / "bundle", target, also=(cpu,), kv=kv)
    return folder / "bundle"


@pytest.fixture(scope="module")
def bundle(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four bits a weight, half floats in the cache, a draft."""
    folder = tmp_path_factory.mktemp("device")
    return compile_tiny(folder, target, "qwen2", "q4", "f16")


@pytest.fixture(scope="module")
def windowed(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers with a window of 24 beside one without; float32 throughout."""
    return compile_tiny(tmp_path_factory.mktemp("windowed"), target, "gemma3", "f32", "f32")


@pytest.fixture(scope="module")
def model(bundle: Path, target: str) -> Iterator[Model]:
    with forerun.load(bundle, target=target, sequences=2) as model:
        yield model


@pytest.mark.parametrize("kind", ("bundle", "windowed"))
def test_logits_and_cache_are_near_the_cpus(
    kind: str, target: str, request: pytest.FixtureRequest, rng: np.random.Generator
) -> None:
    """float32 rounds apart in its last bits; 8-bit activations by up to 1/254 of the largest of 16."""
    ids = rng.integers(0, VOCABULARY_SIZE, 300).tolist()
    found = []
    for name in (target, None):
        with LoadedProgram(request.getfixturevalue(kind), name) as program, Session(program) as session:
            assert (program.device != "") == (name == target)
            sequence = session.create_sequence()
            logits = append(session, sequence, ids, 100)
            found.append((logits, session.read_kv(sequence, 1, 0, 300)))
    (ours, our_cache), (theirs, their_cache) = found
    if kind == "windowed":
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        np.testing.assert_allclose(our_cache, their_cache, atol=1e-4)
    else:
        assert np.sqrt(((ours - theirs) ** 2).mean()) < 0.05 * theirs.std()
        np.testing.assert_allclose(our_cache, their_cache, atol=0.05 * np.abs(their_cache).max())


@pytest.mark.parametrize("kind", ("bundle", "windowed"))
@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_happened_before_the_next_row_is_the_same(
    kind: str, target: str, request: pytest.FixtureRequest, tmp_path: Path, data: st.DataObject
) -> None:
    bundle = request.getfixturevalue(kind)
    with LoadedProgram(bundle, target) as program, Session(program, sequences=3) as session:
        check_history(session, tmp_path, data)


def commit_moved(session: Session, sequence: int, ids: list[int]) -> None:
    """Commit a text, then tokens 9 and 10 as the second of two branches, whose rows have to move."""
    append(session, sequence, ids)
    rows = list(session.stage(sequence, [7, 8, 9, 10], [-1, 0, -1, 2]))
    session.forward([(sequence, row) for row in rows])
    session.commit(sequence, rows[2:])


@pytest.mark.parametrize("kind", ("bundle", "windowed"))
def test_rows_that_are_to_be_moved(
    kind: str, target: str, request: pytest.FixtureRequest, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Moves wait for the next pass: a fork has made them, and they do not come upon what takes the sequence's place."""
    first, second, probe = (rng.integers(0, VOCABULARY_SIZE, count).tolist() for count in (50, 70, 5))
    with (
        LoadedProgram(request.getfixturevalue(kind), target) as program,
        Session(program, sequences=2) as session,
    ):
        expected = []
        for ids in ([*first, 9, 10], second):
            fresh = session.create_sequence()
            append(session, fresh, ids)
            session.save(fresh, tmp_path / "saved")
            expected.append(append(session, fresh, probe).tobytes())
            session.release_sequence(fresh)
        sequence = session.create_sequence()
        commit_moved(session, sequence, first)
        fork = session.fork(sequence)
        assert append(session, fork, probe).tobytes() == expected[0], "a fork lacks what was to be moved"
        session.release_sequence(fork)
        session.rewind(sequence, 0)
        commit_moved(session, sequence, first)
        session.release_sequence(sequence)
        restored = session.restore(tmp_path / "saved")
        assert restored == sequence
        assert append(session, restored, probe).tobytes() == expected[1], "a restored sequence was moved in"


@pytest.mark.parametrize(
    "drafter", ("lookup:min_ngram=1,branches=2", "self:layers=1", "self:skip=a1+f0", "auto", 5)
)
@pytest.mark.parametrize("temperature", (0.0, 1.0))
def test_no_drafter_changes_a_token(
    model: Model, drafter: str | int, temperature: float, rng: np.random.Generator
) -> None:
    prompt = rng.integers(0, VOCABULARY_SIZE, int(rng.integers(5, 300))).tolist() * 2
    options = {"max_tokens": 30, "temperature": temperature, "seed": 3, "ignore_end": True}
    plain = model.generate(prompt[:600], **options).complete()
    chosen = RandomTrees(drafter) if isinstance(drafter, int) else drafter
    assert model.generate(prompt[:600], drafter=chosen, **options).complete().ids == plain.ids


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    drafter=st.sampled_from(("none", "lookup:min_ngram=1", "self:layers=1,tokens=3")),
    prompt=st.lists(st.integers(0, VOCABULARY_SIZE - 1), min_size=1, max_size=30),
    temperature=st.sampled_from((0.0, 0.7)),
    top_k=st.sampled_from((0, 5)),
    exits=st.sampled_from(("never", "confidence:layers=0,threshold=0.02")),
)
def test_both_loops_agree(model: Model, prompt: list[int], exits: str, **options) -> None:
    check_conformance(model, prompt, exit=exits, max_tokens=12, ignore_end=True, **options)


def test_drafts_run_on_the_device_too(target: str, tmp_path: Path) -> None:
    draft = write_draft(tmp_path / "draft", "heads", seed=7).directory
    export = export_model(write_folder(tmp_path / "source", seed=5), tmp_path / "export", "f32").directory
    compile_export(export, tmp_path / "bundle", target, kv="f32", drafts={"heads": draft})
    with forerun.load(tmp_path / "bundle") as model:
        options = {"max_tokens": 24, "ignore_end": True}
        plain = model.generate([3, 1, 4, 1, 5], **options).complete()
        drafted = model.generate([3, 1, 4, 1, 5], drafter="heads", **options).complete()
        assert drafted.ids == plain.ids
        assert drafted.stats.drafted > 0


def test_sessions_of_one_bundle_run_side_by_side(bundle: Path, target: str) -> None:
    """Each has a queue of its own: two threads at a time get what one gets alone."""
    prompts = ([1, 2, 3, 4] * 9, [9, 8, 7] * 11)
    with LoadedProgram(bundle, target) as program:
        expected, found = [], [np.zeros(0), np.zeros(0)]
        for prompt in prompts:
            with Session(program) as session:
                expected.append(append(session, session.create_sequence(), prompt, 7))

        def run(index: int) -> None:
            with Session(program) as session:
                for _ in range(5):
                    sequence = session.create_sequence()
                    found[index] = append(session, sequence, prompts[index], 7)
                    session.release_sequence(sequence)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for ours, alone in zip(found, expected, strict=True):
        assert ours.tobytes() == alone.tobytes()


def test_the_cpu_is_taken_unless_the_device_is_asked_for(bundle: Path, target: str) -> None:
    assert [each.name for each in read_bundle(bundle).targets] == [detect_target().name, target]
    with LoadedProgram(bundle) as program:
        assert (program.target, program.device) == (detect_target().name, "")


def test_info_names_the_device(bundle: Path, target: str) -> None:
    cpu, device = (try_target(read_bundle(bundle), name, ()) for name in (detect_target().name, target))
    name = find_device(next(one.device for one in ALL_DEVICES if one.name == target))
    assert (cpu.obstacle, device.obstacle) == (None, None)
    assert device.note == f"{name}; {cpu.note}"


def test_more_memory_than_the_device_gives(bundle: Path, target: str) -> None:
    with LoadedProgram(bundle, target) as program:
        with pytest.raises(ForerunError, match=r"use fewer sequences or a smaller capacity") as raised:
            Session(program, sequences=1 << 15, capacity=1 << 22)
        assert raised.value.status == Status.OUT_OF_MEMORY
        with Session(program) as session:
            append(session, session.create_sequence(), [1, 2, 3])


def test_a_device_has_no_profile(bundle: Path, target: str) -> None:
    with LoadedProgram(bundle, target) as program:
        session = Session(program)
    with session, pytest.raises(ForerunError, match="no profile"), session.profiler():
        pass


def test_what_a_device_copies_can_be_measured(bundle: Path, target: str) -> None:
    copy = load_library().forerun_measure_device_copy
    found = (ctypes.c_uint64 * 2)()
    with LoadedProgram(bundle, target) as program, Session(program) as session:
        assert copy(session.pointer, 1 << 20, 2, found) == Status.OK
        assert min(found) > 0
        assert copy(session.pointer, 6, 2, found) == Status.INVALID_ARGUMENT
    with LoadedProgram(bundle) as program, Session(program) as session:
        assert copy(session.pointer, 1 << 20, 2, found) == Status.INVALID_ARGUMENT
        assert b"no device to measure" in load_library().forerun_last_error()


TRY = """
import sys, forerun
from forerun.errors import TargetError
try:
    forerun.load(sys.argv[1], target=sys.argv[2])
except TargetError as error:
    print(error)
with forerun.load(sys.argv[1]) as model:
    print(len(model.generate([1, 2, 3], max_tokens=4, ignore_end=True).complete().ids))
"""


# What names the drivers in the environment, what names none, and what is said then.
NO_DRIVERS = {
    "opencl": ("OCL_ICD_VENDORS", "/nowhere", "OpenCL is there but has no device; install"),
    "webgpu": ("VK_ICD_FILENAMES", "/nowhere", "WebGPU is there but has no device; install"),
    "cuda-sm_90": ("CUDA_VISIBLE_DEVICES", "-1", "CUDA is there but has no device"),
}


@pytest.mark.parametrize("reason", ("no drivers", "another device"))
def test_a_device_that_is_not_there(
    bundle: Path, target: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, and the CPU goes on working."""
    variable, none, message = NO_DRIVERS[target]
    if reason == "no drivers":
        monkeypatch.setenv(variable, none)
    else:
        monkeypatch.setenv("FORERUN_DEVICE", "no such GPU")
        message = "device has no such GPU in its name (FORERUN_DEVICE); there are:"
    command = [sys.executable, "-c", TRY, str(bundle), target]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    told, count = result.stdout.splitlines()
    assert message in told
    assert count == "4"


def rebuild(bundle: Path, target: str, change: tuple[str, str]) -> None:
    """Compile a changed program for the device and put it into the bundle."""
    source = bundle / "src" / f"{target}.c"
    text = source.read_text()
    assert change[0] in text
    source.write_text(text.replace(*change))
    library = bundle / "lib" / f"{target}.so"
    link([source], bundle / "src", library, PLATFORMS["linux-x86-64"])
    body = json.loads((bundle / "manifest.json").read_text())["manifest"]
    body["files"][f"lib/{target}.so"] = describe_file(library)
    write_manifest_body(bundle, body)


@pytest.mark.parametrize(
    ("change", "message", "status"),
    (
        (("fma(", "no_such_function("), "no_such_function", Status.DEVICE),
        (('.device = "', '.device = "abacus-'), "runs no programs for abacus-\\w+ devices", Status.DEVICE),
        (
            (".block_positions = 128", ".block_positions = 0"),
            "tables for its device cannot be",
            Status.PROGRAM,
        ),
    ),
)
def test_programs_that_cannot_be(
    bundle: Path, target: str, tmp_path: Path, change: tuple[str, str], message: str, status: Status
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    if target.startswith("cuda") and message == "no_such_function":
        change = (
            '_kernel", 0, ',
            '_no_such_function", 0, ',
        )  # of a cubin only the kernels' names can be wrong
    rebuild(own, target, change)
    with pytest.raises(ForerunError, match=message) as raised:
        LoadedProgram(own, target)
    assert raised.value.status == status
    with LoadedProgram(own) as program:
        assert program.device == ""
