"""The Kotlin API compiled once, and a bundle that it talks to."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from kotlin_build import ROOT, Probe, build_jni, compile_kotlin, java_command, missing_tools


@pytest.fixture(scope="session")
def kotlin_jar() -> Path:
    """The Kotlin API, the example and the tests' program."""
    if missing := missing_tools():
        pytest.skip(f"needs {missing}")
    return compile_kotlin(ROOT / "build" / "test" / "jvm")


@pytest.fixture(scope="session")
def jni_folder(kotlin_jar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libforerun_jni.so is, over the installed core."""
    return build_jni(tmp_path_factory.mktemp("jni"))


@pytest.fixture(scope="session")
def spoken_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny decoder that speaks in parts of characters; not to be changed."""
    from spoken_bundle import make_spoken_bundle

    return make_spoken_bundle(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="session")
def probe(kotlin_jar: Path, jni_folder: Path) -> Probe:
    """A function (task, bundle, requests) → rows that the Kotlin program answers with."""

    def ask(
        task: str, bundle: Path, requests: Sequence[Sequence[object]] = (), *options: str
    ) -> list[list[str]]:
        command = java_command(kotlin_jar, jni_folder, "probe.ProbeKt", (task, str(bundle)), options)
        lines = "".join("\t".join(map(str, request)) + "\n" for request in requests)
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0 and not done.stderr, done.stderr
        # What -Xcheck:jni has to say comes among the answers.
        assert "WARNING" not in done.stdout and "FATAL" not in done.stdout, done.stdout
        return [line.split("\t") for line in done.stdout.splitlines()]

    return ask
