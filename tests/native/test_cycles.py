"""10,000 answers begun and ended, 1,000 bundles loaded and unloaded: the process holds as much as before."""

import os
import subprocess
from pathlib import Path

import pytest

from forerun.runtime.library import find_library

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cycles.c with the installed library."""
    path, library = tmp_path_factory.mktemp("cycles") / "cycles", find_library()
    headers = HERE.parents[1] / "runtime" / "native" / "include"
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-I", headers, HERE / "cycles.c"]
    command += [library, f"-Wl,-rpath,{library.parent}", "-o", path]
    subprocess.run(list(map(str, command)), check=True)
    return path


def test_nothing_grows(program: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    command = [str(program), str(tiny_bundle), "10000", "1000"]
    # Without these caches the C library counts as used what is used.
    caches = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
    environment = {**os.environ, "GLIBC_TUNABLES": caches}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    early, late, loaded, reloaded = done.stdout.splitlines()
    assert early == late and early.startswith("answers")
    assert loaded == reloaded and loaded.endswith("threads 1")
