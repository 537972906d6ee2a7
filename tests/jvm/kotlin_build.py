"""The Kotlin API and a program of the tests, compiled once, and the JNI library: what the tests of the JVM run."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from forerun.runtime.library import find_library

# (task, bundle, requests, options of java) → rows that the tests' program answers with.
Probe = Callable[..., list[list[str]]]

ROOT = Path(__file__).parents[2]
KOTLIN_HOME = ROOT / ".venv" / "node_modules" / "kotlin-compiler"
SOURCES = sorted(
    [
        *(ROOT / "runtime/jvm/kotlin").rglob("*.kt"),
        ROOT / "examples/Chat.kt",
        *Path(__file__).parent.glob("*.kt"),
    ]
)
JNI_SOURCES = sorted((ROOT / "runtime/jvm/native").glob("*.c"))
_COMPILER_JARS = ("kotlin-compiler", "kotlin-stdlib", "kotlin-script-runtime", "kotlin-reflect")
_COROUTINES = KOTLIN_HOME / "lib" / "kotlinx-coroutines-core-jvm.jar"


def java_home() -> Path | None:
    """The JDK that `javac` belongs to, if it has JNI's header."""
    compiler = shutil.which("javac")
    home = Path(compiler).resolve().parents[1] if compiler else None
    return home if home is not None and (home / "include" / "jni.h").is_file() else None


def find_kotlin_jar() -> Path:
    """The Kotlin API, the example and the tests' program; skips the test where they cannot be compiled."""
    if missing := missing_tools():
        pytest.skip(f"needs {missing}")
    return compile_kotlin(ROOT / "build" / "test" / "jvm")


def missing_tools() -> str:
    """What to install before Kotlin can be compiled and run, or nothing."""
    missing = []
    if java_home() is None:
        missing.append("a JDK (apt install openjdk-17-jdk-headless)")
    if not _COROUTINES.is_file():
        missing.append("the Kotlin compiler (npm, then make setup)")
    return " and ".join(missing)


def _jars(*names: str) -> str:
    return ":".join(str(KOTLIN_HOME / "lib" / f"{name}.jar") for name in names)


def compile_kotlin(folder: Path) -> Path:
    """Compile all Kotlin sources to a jar in `folder`, or return the one that was made of the same sources."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
    jar = folder / f"{digest}.jar"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jar.exists():
            fresh = folder / "fresh.jar"
            # The compiler runs for seconds: the JVM's quick compiler and collector make it finish sooner.
            command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
            command += ["-cp", _jars(*_COMPILER_JARS, "kotlinx-coroutines-core-jvm", "annotations-13.0")]
            command += ["org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-kotlin-home", str(KOTLIN_HOME)]
            command += ["-Werror", "-no-reflect", "-jvm-target", "11", "-cp", str(_COROUTINES)]
            subprocess.run([*command, "-d", str(fresh), *map(str, SOURCES)], check=True)
            fresh.rename(jar)
    return jar


def jni_flags() -> list[str]:
    """Options of a C compiler that finds JNI's header and the core's."""
    home = java_home()
    assert home is not None
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"]
    folders = (home / "include", home / "include" / "linux", ROOT / "runtime/native/include")
    return [*flags, *(f"-I{folder}" for folder in folders)]


def build_jni(folder: Path) -> Path:
    """Build libforerun_jni.so over the installed core and return its folder."""
    core = find_library()
    command = ["cc", *jni_flags(), *map(str, JNI_SOURCES), str(core), f"-Wl,-rpath,{core.parent}"]
    subprocess.run([*command, "-o", str(folder / "libforerun_jni.so")], check=True)
    return folder


def java_command(
    jar: Path, jni: Path, main: str, arguments: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    """The command that runs a class of the jar, with JNI's calls checked by the JVM."""
    classes = f"{jar}:{_jars('kotlin-stdlib')}:{_COROUTINES}"
    # Xshare and the quick compiler make the JVM start in half the time.
    flags = ["-Xcheck:jni", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Djava.library.path={jni}"]
    return ["java", *flags, *options, "-cp", classes, main, *arguments]


def run_probe(
    jar: Path, jni: Path, task: str, bundle: Path, requests: Sequence[Sequence[object]] = (), *options: str
) -> list[list[str]]:
    """Run the tests' program; `options` are of `java`. Returns the rows that it answers with."""
    command = java_command(jar, jni, "probe.ProbeKt", (task, str(bundle)), options)
    lines = "".join("\t".join(map(str, request)) + "\n" for request in requests)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    # What -Xcheck:jni has to say comes among the answers.
    assert "WARNING" not in done.stdout and "FATAL" not in done.stdout, done.stdout
    return [line.split("\t") for line in done.stdout.splitlines()]


def answer_request(
    drafter: str, shape: str, prompt: Sequence[int], max_tokens: int, **settings: Any
) -> list[object]:
    """A request for the program's task `answers`; `settings` as `Model.generate` takes them."""
    defaults: dict[str, Any] = {"exit": "", "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    defaults |= {"ignore_end": False, "stop": ()}
    chosen = {**defaults, **settings}
    stops = ",".join(stop.encode().hex() for stop in chosen.pop("stop"))
    return [drafter, shape, *chosen.values(), max_tokens, stops, ",".join(map(str, prompt))]


def ids_of(text: str) -> list[int]:
    """Ids as the program writes them."""
    return [int(part) for part in text.split(",") if part]


def text_of(text: str) -> str:
    """A text as the program writes it: UTF-8 in hexadecimal digits."""
    return bytes.fromhex(text).decode()
