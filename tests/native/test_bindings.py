"""What Kotlin, JNI and Swift say about the C interface, against its headers and the library."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from forerun.runtime.library import load_library

ROOT = Path(__file__).parents[2]
HEADERS = "".join(path.read_text() for path in sorted((ROOT / "runtime/native/include/forerun").glob("*.h")))
JNI = {path.name: path.read_text() for path in sorted((ROOT / "runtime/jvm/native").glob("*.[ch]"))}
KOTLIN = {path.name: path.read_text() for path in sorted((ROOT / "runtime/jvm/kotlin").rglob("*.kt"))}
SWIFT = {path.name: path.read_text() for path in sorted((ROOT / "runtime/swift").rglob("*.swift"))}
MODULE = ROOT / "runtime" / "swift" / "CForerun"
# Names that only look like the core's: the JNI library itself, and what a package's header adds.
OTHERS = {"forerun_jni", "FORERUN_JNI_VALUES_H", "FORERUN_PACKAGE_NAME", "forerun_NAME_programs"}
OTHERS |= {"FORERUN_NAME_PROGRAMS", "FORERUN_MOST", "FORERUN_LINKED", "forerun_"}
JNI_TYPES = {
    "Boolean": "jboolean",
    "Int": "jint",
    "Long": "jlong",
    "Double": "jdouble",
    "ByteArray": "jbyteArray",
    "IntArray": "jintArray",
    "LongArray": "jlongArray",
    "DoubleArray": "jdoubleArray",
    "BooleanArray": "jbooleanArray",
    "Array<ByteArray>": "jobjectArray",
    "": "void",
}


def without_comments(source: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.DOTALL)


def header_number(name: str) -> int:
    found = re.search(rf"\b{name}(?: =)? (\d+)", HEADERS)
    assert found is not None, name
    return int(found[1])


@pytest.mark.parametrize("sources", (JNI, SWIFT), ids=("jni", "swift"))
def test_every_name_of_the_core_is_declared_and_exported(sources: dict[str, str]) -> None:
    declared = set(re.findall(r"\b(?:forerun|FORERUN)_\w+", without_comments(HEADERS)))
    functions = set(re.findall(r"\b(forerun_\w+)\(", without_comments(HEADERS)))
    library = load_library()
    called = 0
    for name, source in sources.items():
        used = set(re.findall(r"\b(?:forerun|FORERUN)_\w*", without_comments(source))) - OTHERS
        assert used <= declared, (name, used - declared)
        for function in used & functions:
            called += 1
            assert hasattr(library, function), f"{function} is not exported"
    assert called > 20


def test_kotlins_native_methods_are_those_of_the_jni_library() -> None:
    """A method that is missing, or has another type than Kotlin says, would only be found when it is called."""
    wanted = {}
    for name, given, result in re.findall(
        r"external fun (\w+)\(([^)]*)\)(?:: ([\w<>]+))?", KOTLIN["Native.kt"]
    ):
        types = [part.split(":")[1].strip().replace("?", "") for part in given.split(",") if part.strip()]
        wanted[name] = (JNI_TYPES[result], [JNI_TYPES[kind] for kind in types])
    found = {}
    for result, name, given in re.findall(
        r"^NATIVE\((\w+), (\w+)\)\s*\(([^)]*)\)", "".join(JNI.values()), re.MULTILINE
    ):
        types = [part.split()[0] for part in given.split(",")]
        assert types[:2] == ["JNIEnv*", "jclass"]
        found[name] = (result, types[2:])
    assert found == wanted and len(wanted) > 25


def test_kotlins_numbers_are_the_headers() -> None:
    for name in ("MOST_DRAWN", "MOST_COSTS"):
        found = re.search(rf"const val {name} = (\d+)", KOTLIN["Native.kt"])
        assert found is not None and int(found[1]) == header_number(f"FORERUN_{name}")
    statuses = re.findall(r"const val (\w+): Int = (\d+)", KOTLIN["ForerunException.kt"])
    assert len(statuses) > 5
    for name, number in statuses:
        assert int(number) == header_number(f"FORERUN_{name}")
    finishes = re.findall(
        r"^    ([A-Z_]+),$", KOTLIN["Options.kt"].split("enum class Finish")[1], re.MULTILINE
    )
    assert len(finishes) == 4
    for place, name in enumerate(finishes, start=1):
        assert header_number(f"FORERUN_FINISH_{name}") == place


def test_kotlin_needs_nothing_of_androids() -> None:
    for name, source in KOTLIN.items():
        packages = set(re.findall(r"^import ([a-z]+)\.", source, re.MULTILINE))
        assert packages <= ({"kotlinx"} if name == "Flows.kt" else {"java"}), name


@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the package ziglang")
@pytest.mark.parametrize("language", ("c", "c++", "objective-c", "objective-c++"))
def test_swifts_module_of_the_core_compiles(language: str, tmp_path: Path) -> None:
    """By the module map, as Swift reads it, where the language has an import of modules; else by its header."""
    source = tmp_path / "source"
    imported = "@import CForerun;" if language == "objective-c" else "#include <shim.h>"
    source.write_text(
        f"{imported}\nint use(forerun_bundle *b, forerun_model *m);\n"
        "int use(forerun_bundle *b, forerun_model *m) { return forerun_bundle_model(b, m); }\n"
    )
    command = [sys.executable, "-m", "ziglang", "cc", "-x", language, "-Wall", "-Wextra", "-Werror"]
    command += ["-I", str(MODULE), "-I", str(ROOT / "runtime/native/include")]
    if language == "objective-c":
        command += ["-fmodules", f"-fmodules-cache-path={tmp_path}"]
        command += [f"-fmodule-map-file={MODULE / 'module.modulemap'}"]
    done = subprocess.run(
        [*command, "-c", str(source), "-o", str(tmp_path / "object.o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
