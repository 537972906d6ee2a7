"""Packages: apps built with them run here and under qemu with the bits of this machine; what cannot run is checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from emulated_answers import Question, answer_by_definition, answer_emulated, build_answers
from emulated_kernels import MISSING, PROCESSORS, processor_command
from kotlin_build import java_home
from tiny_models import VARIANTS, write_folder

import forerun
from forerun.compiler import compile_export, toolchain
from forerun.compiler.elf import read_demands
from forerun.compiler.package import MARKER, PackageReport, package_bundle
from forerun.compiler.shared_library import check_demands
from forerun.errors import BundleError, CompileError, OptionError, OutputError, TargetError
from forerun.export import export_model
from forerun.runtime.session import LoadedProgram
from forerun.targets import ALL_DEVICES, PLATFORMS, TARGETS, detect_target

DEVICES = tuple(target.name for target in ALL_DEVICES)
GREEDY = Path(__file__).parents[1] / "native" / "greedy.c"
PROMPT, TOKENS = ("5", "17", "250", "3", "99"), 12
ARM = tuple(PROCESSORS)
# In machines with such a processor; there is none here, and no driver in the emulator.
ARM_DEVICES = ("opencl-arm64", "webgpu-arm64")
needs_arm = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake (apt install cmake)")
needs_zig = pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the package ziglang")

Maker = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A function (quant, target, *also) → bundle of a tiny random model."""
    root = tmp_path_factory.mktemp("bundles")

    def make(quant: str, *targets: str) -> Path:
        place, export = root / "-".join((quant, *targets)), root / f"{quant}-export"
        if not export.exists():
            write_folder(root / f"{quant}-model", seed=3, **VARIANTS["qwen2"])
            export_model(root / f"{quant}-model", export, quant)
        if not place.exists():
            compile_export(export, place, targets[0], also=targets[1:])
        return place

    return make


@pytest.fixture(scope="module")
def shared(bundle: Maker) -> Path:
    """A bundle for this machine, every 64-bit Arm and devices beside one, over one weights file."""
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}")
    own = detect_target()
    if own.weight_layout != TARGETS[ARM[0]].weight_layout or not own.fma:
        pytest.skip(f"{own.name} stores weights otherwise")
    return bundle("q4", own.name, *ARM, *ARM_DEVICES)


def run_app(command: list[str], model: Path, target: str = "-", threads: int = 1) -> dict[str, str]:
    """Return the lines that greedy.c prints, by their first words."""
    given = [*command, str(model), target, str(threads), str(TOKENS), *PROMPT]
    done = subprocess.run(given, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def build_app(package: Path, compiler: str, app: Path, *flags: str) -> Path:
    """Build greedy.c with a package as its README says."""
    options = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{package / 'include'}", *flags]
    libraries = [str(package / "lib" / name) for name in ("libtiny.a", "libforerun.a")]
    last = ["-lstdc++", "-lpthread", "-ldl", "-lm"]
    subprocess.run([compiler, *options, str(GREEDY), *libraries, *last, "-o", str(app)], check=True)
    return app


LINKED = ("-DLINKED=forerun_tiny_programs", '-DLINKED_HEADER="tiny.h"')


@pytest.fixture(scope="module")
def packages(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle's packages for Linux."""
    root = tmp_path_factory.mktemp("packages")
    for platform in ("linux-x86-64", "linux-arm64"):
        package_bundle(shared, platform, root / platform, name="tiny")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def here(packages: dict[str, Path]) -> dict[str, str]:
    """What an app built with the package for this machine prints."""
    package = packages["linux-x86-64"]
    app = build_app(package, "cc", package / "app", *LINKED)
    return run_app([str(app)], package / "model", threads=2)


@needs_arm
@pytest.mark.parametrize("target", ARM)
def test_an_app_on_arm_has_the_bits_of_this_machine(
    target: str, packages: dict[str, Path], here: dict[str, str]
) -> None:
    """Each processor takes the best program that it runs; ids and logits are equal to the last bit, in any rows."""
    assert here["target"] == detect_target().name and here["rows"] == "equal"
    package = packages["linux-arm64"]
    app = package / "app"
    if not app.exists():
        build_app(package, "aarch64-linux-gnu-gcc", app, *LINKED)
    assert not list((package / "model").rglob("*.so"))
    printed = run_app([*processor_command(PROCESSORS[target]), str(app)], package / "model")
    assert printed == {**here, "target": target}


DRAFTED: tuple[tuple[str, str | None], ...] = (
    ("none", None),
    ("lookup:min_ngram=1,branches=3", "tree:branches=2+2+1"),
    ("self:layers=1,tokens=4", None),
    ("self:skip=a1+f0", "cape:siblings=2"),
    ("auto", None),
)
QUESTIONS = [
    Question(prompt, drafter, shape, exits, *sampled)
    for prompt, sampled in (
        ((5, 17, 250, 3, 99, 5, 17, 250), (0.0, 0, 0)),
        ((7,), (1.0, 0, 5)),
        ((40, 41, 42, 40, 41, 42, 40, 41), (0.7, 20, 6)),
    )
    for drafter, shape in DRAFTED
    for exits in ("never", "confidence:layers=0,threshold=0.05")
]


@needs_arm
@pytest.mark.parametrize("target", ("arm64", "arm64-i8mm"))
def test_the_loop_on_arm_is_the_loop(target: str, shared: Path, packages: dict[str, Path]) -> None:
    """Ids and acceptance traces of the native loop there and its definition here; the sequence is saved and restored
    between answers."""
    package = packages["linux-arm64"]
    app = package / "answers"
    if not app.exists():
        build_answers(package, app, "tiny")
    with forerun.load(shared, threads=1) as model:
        expected = answer_by_definition(model, QUESTIONS)
    assert answer_emulated(app, package / "model", PROCESSORS[target], QUESTIONS) == expected
    assert sum(sum(trace.accepted) for trace in expected) > 20
    assert any(trace.exits for trace in expected)


@needs_arm
def test_a_bundles_library_is_loaded_on_arm(
    shared: Path, packages: dict[str, Path], here: dict[str, str], tmp_path: Path
) -> None:
    app = build_app(packages["linux-arm64"], "aarch64-linux-gnu-gcc", tmp_path / "app")
    printed = run_app([*processor_command("max"), str(app)], shared, "arm64-dotprod")
    assert printed == {**here, "target": "arm64-dotprod"}
    command = [*processor_command("cortex-a53"), str(app), str(shared), "arm64-i8mm", "1", "1", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1 and "asimddp" in done.stderr


@needs_arm
@pytest.mark.parametrize(
    ("target", "said"), tuple(zip(ARM_DEVICES, ("OpenCL is not", "WebGPU is not"), strict=True))
)
def test_a_device_on_arm_asks_for_its_driver(
    target: str, said: str, shared: Path, packages: dict[str, Path], tmp_path: Path
) -> None:
    """By the bundle's library, and by a program that is linked into the app."""
    linked = build_app(packages["linux-arm64"], "aarch64-linux-gnu-gcc", tmp_path / "linked", *LINKED)
    loading = build_app(packages["linux-arm64"], "aarch64-linux-gnu-gcc", tmp_path / "loading")
    for app, model in ((linked, packages["linux-arm64"] / "model"), (loading, shared)):
        command = [*processor_command("max"), str(app), str(model), target, "1", "1", "5"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 1 and f"{said} there: " in done.stderr


@needs_arm
def test_one_weights_file_serves_all_targets(shared: Path, bundle: Maker) -> None:
    alone = bundle("q4", detect_target().name)
    assert (shared / "weights.bin").read_bytes() == (alone / "weights.bin").read_bytes()
    program = LoadedProgram(shared)
    assert program.target == detect_target().name
    program.close()


@needs_arm
@needs_cmake
def test_cmake_finds_the_package(packages: dict[str, Path], here: dict[str, str], tmp_path: Path) -> None:
    package = packages["linux-x86-64"]
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(app LANGUAGES C CXX)\n"
        f"find_package(forerun-package REQUIRED PATHS {package}/cmake NO_DEFAULT_PATH)\n"
        f"add_executable(app {GREEDY})\n"
        'target_compile_definitions(app PRIVATE LINKED=forerun_tiny_programs LINKED_HEADER="tiny.h")\n'
        "target_link_libraries(app PRIVATE forerun::tiny)\n"
    )
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert run_app([str(tmp_path / "build" / "app")], package / "model") == here


@pytest.fixture(scope="module")
def android(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> PackageReport:
    """The bundle's package for Android."""
    return package_bundle(
        shared, "android-arm64", tmp_path_factory.mktemp("android") / "package", name="tiny"
    )


@needs_arm
@needs_zig
def test_android_asks_for_no_more_than_every_device_has(android: PackageReport) -> None:
    report, library = android, android.folder / "lib" / "libtiny.so"
    demands, allowed = read_demands(library), PLATFORMS["android-arm64"].demands
    assert allowed is not None
    assert demands.libraries == ("libc.so",) and demands.page_bytes == 16384
    assert "mmap" in demands.symbols and set(demands.symbols) <= allowed.symbols
    assert "run nowhere" in report.summary and set(report.targets) == {*ARM, *ARM_DEVICES}
    strict = replace(allowed, libraries=frozenset(), symbols=allowed.symbols - {"mmap"}, page_bytes=65536)
    with pytest.raises(CompileError, match=r"libc\.so.*mmap.*16384"):
        check_demands(library, strict)


@needs_arm
@needs_zig
@needs_cmake
@pytest.mark.skipif(java_home() is None, reason="needs a JDK (apt install openjdk-17-jdk-headless)")
def test_the_jni_library_links_with_a_package_for_android(android: PackageReport, tmp_path: Path) -> None:
    """By its CMake file, as Android's kit would. It asks for the package's library, and for no more of the system."""
    platform, home, build = PLATFORMS["android-arm64"], java_home(), tmp_path / "build"
    compilers = toolchain.find_toolchain(platform, cplusplus=True)
    environment = {**os.environ, "CC": " ".join(compilers.cc), "CXX": " ".join(compilers.cxx)}
    headers = f"-DCMAKE_C_FLAGS=-I{home}/include -I{home}/include/linux"
    configure = ["cmake", "-S", str(android.folder / "jvm"), "-B", str(build), "-DANDROID=1", headers]
    configure += ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (configure, ["cmake", "--build", str(build)]):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    built = build / "libforerun_jni.so"
    demands = read_demands(built)
    cores = {symbol for symbol in demands.symbols if symbol.startswith("forerun_")}
    assert "forerun_tiny_programs" in cores and "libtiny.so" in demands.libraries
    assert platform.demands is not None
    allowed = replace(
        platform.demands,
        libraries=platform.demands.libraries | {"libtiny.so"},
        symbols=platform.demands.symbols | cores,
    )
    check_demands(built, allowed)


@needs_zig
@pytest.mark.parametrize(
    ("target", "magic"),
    (
        ("wasm32", b"\0asm"),
        ("ios-arm64", b"\xcf\xfa\xed\xfe"),
        ("arm64", b"\x7fELF"),
        ("metal", b"\xcf\xfa\xed\xfe"),
        ("webgpu-wasm32", b"\0asm"),
    ),
)
def test_objects(target: str, magic: bytes, bundle: Maker, tmp_path: Path) -> None:
    made = bundle("f32", target)
    parts = ["program.o"] if target in DEVICES else ["kernels.o", "program.o"]
    assert sorted(path.name for path in (made / "lib" / target).iterdir()) == parts
    platform = next(one.name for one in PLATFORMS.values() if one.programs == TARGETS[target].platform)
    if PLATFORMS[platform].core:
        return
    package_bundle(made, platform, tmp_path / "package", name="tiny")
    objects = sorted((tmp_path / "package" / "lib" / "objects").iterdir())
    assert len(objects) == len(parts) + 1 and all(path.read_bytes().startswith(magic) for path in objects)
    assert "only compiled" in (tmp_path / "package" / "README.md").read_text()
    with pytest.raises(TargetError, match="is for"):
        LoadedProgram(made)


def test_mistakes_leave_nothing_behind(bundle: Maker, tmp_path: Path) -> None:
    own = bundle("f32", "x86-64")
    with pytest.raises(TargetError, match="unknown platform 'amiga'; known platforms: linux-x86-64"):
        package_bundle(own, "amiga", tmp_path / "package")
    with pytest.raises(TargetError, match=r"no program for android-arm64.*--target arm64-i8mm --target"):
        package_bundle(own, "android-arm64", tmp_path / "package")
    copy = Path(shutil.copytree(own, tmp_path / "copy"))
    with (copy / "lib" / "x86-64" / "kernels.o").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BundleError, match=r"kernels\.o was changed"):
        package_bundle(copy, "linux-x86-64", tmp_path / "package")
    (copy / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"weights\.bin is missing"):
        package_bundle(copy, "linux-x86-64", tmp_path / "package")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="forerun package did not write"):
        package_bundle(own, "linux-x86-64", tmp_path / "mine")
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "mine"}


def test_a_package_is_replaced_whole(bundle: Maker, tmp_path: Path) -> None:
    output = tmp_path / "package"
    for name in ("first", "second"):
        package_bundle(bundle("f32", "x86-64"), "linux-x86-64", output, name=name)
        facts = json.loads((output / MARKER).read_text())
        assert facts["name"] == name and facts["programs"] == {name: ["x86-64"]}
        libraries = sorted(path.name for path in (output / "lib").iterdir())
        assert libraries == sorted(("libforerun.a", f"lib{name}.a"))
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_a_missing_compiler_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_is_here", lambda command: False)
    with pytest.raises(CompileError, match=r"aarch64-linux-gnu-gcc.*apt install gcc-aarch64-linux-gnu"):
        toolchain.find_toolchain(PLATFORMS["linux-arm64"])
    with pytest.raises(CompileError, match=r"C\+\+ compiler for android-arm64.*pip install ziglang"):
        toolchain.find_toolchain(PLATFORMS["android-arm64"], cplusplus=True)


def test_targets_of_other_layouts_are_refused(bundle: Maker, tmp_path: Path) -> None:
    bundle("f32", "x86-64")
    export = next(bundle("f32", "x86-64").parent.glob("f32-export"))
    with pytest.raises(OptionError, match="store weights differently"):
        compile_export(export, tmp_path / "bundle", "x86-64", also=("arm64",))


@pytest.mark.parametrize("size", (0, 4, 63, 200, 5000))
def test_a_damaged_library_is_no_library(size: int, bundle: Maker, tmp_path: Path) -> None:
    data = (bundle("f32", "x86-64") / "lib" / "x86-64.so").read_bytes()
    (tmp_path / "cut.so").write_bytes(data[:size])
    with pytest.raises(CompileError, match=r"cut\.so"):
        read_demands(tmp_path / "cut.so")
