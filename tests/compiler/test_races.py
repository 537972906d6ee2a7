"""Kernels under Oclgrind, an OpenCL device that interprets them: no data races, nothing read or written outside.

`make test-races` runs this, in about five minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif("FORERUN_OCLGRIND" not in os.environ, reason="make test-races runs it")

# Of threads that each read what the next has shared. It has a barrier between where it is told to.
NEIGHBOURS = """
import sys
import numpy as np
from device_runner import DeviceKernels
from forerun.compiler import tir
from forerun.compiler.gpu.writer import Grid, writing
from forerun.targets.opencl import OPENCL
with writing("next", OPENCL.computes, {}, {"out": "int32"}, {}, threads=32, grid=Grid(1, 0)) as (writer, done):
    shared = writer.shared(32, "int32")
    tir.store_one(shared, writer.thread, writer.thread)
    if sys.argv[1] == "meets":
        writer.meet()
    tir.store_one(writer.named["out"], shared[(writer.thread + 1) % 32], writer.thread)
out = np.zeros(32, np.int32)
DeviceKernels(OPENCL, done).call("next", out, rows=1)
"""


def run(command: list[str], folder: Path) -> tuple[int, str, str]:
    """Run Python with Oclgrind as its one OpenCL device; return its status, what it printed, and what was found."""
    home, log = Path(os.environ["FORERUN_OCLGRIND"]), folder / "found.txt"
    (folder / "vendors").mkdir(exist_ok=True)
    (library,) = home.glob("usr/lib/oclgrind/liboclgrind-rt-icd.so")
    (folder / "vendors" / "oclgrind.icd").write_text(f"{library}\n", encoding="utf-8")
    settings = {
        "OCL_ICD_VENDORS": str(folder / "vendors"),
        "LD_LIBRARY_PATH": str(next(home.glob("usr/lib/*/liboclgrind-[0-9]*.so")).parent),
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_NUM_THREADS": "1",  # it crashes with more
        "OCLGRIND_LOG": str(log),
        "PYTHONPATH": str(HERE),
        "PYOPENCL_NO_CACHE": "1",
    }
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **settings},
    )
    found = log.read_text(encoding="utf-8") if log.exists() else ""
    return done.returncode, done.stdout + done.stderr, found


@pytest.mark.parametrize(("kind", "races"), (("meets", False), ("races", True)))
def test_a_missing_barrier_is_found(kind: str, races: bool, tmp_path: Path) -> None:
    status, printed, found = run(["-c", NEIGHBOURS, kind], tmp_path)
    assert status == 0, printed
    assert ("data race at local memory" in found) == races


@pytest.mark.parametrize("module", ("instructions", "draws", "matmul", "rows"))
def test_kernels_have_no_races(module: str, tmp_path: Path) -> None:
    """What the scores of blocks are made of Oclgrind cannot interpret; their threads share nothing."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "--show-capture=no", "-k", "opencl and not scores_bound"]
    status, printed, found = run(
        ["-m", "pytest", *options, f"--basetemp={tmp_path / 'run'}", str(HERE / f"test_gpu_{module}.py")],
        tmp_path,
    )
    assert status == 0, printed
    assert " passed" in printed and not found
