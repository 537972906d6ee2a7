"""What other devices' tests ask, asked of CUDA on machines without a GPU: the core's backend and a driver played by the
processor.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulation import build_emulation

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc (the CUDA toolkit)")


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return build_emulation(tmp_path_factory.mktemp("cuda"))


@pytest.mark.slow
@pytest.mark.parametrize("module", ("device_bundles", "device_draws", "device_failures", "tuned_devices"))
def test_bundles_for_cuda(module: str, emulation: dict[str, str], tmp_path: Path) -> None:
    """In a process of its own: one process has one driver."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={tmp_path / 'run'}"]
    tests = str(HERE / f"test_{module}.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", "cuda-sm_90", "--show-capture=no", tests],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **emulation},
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1]), done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout


# The benchmark of GPUs on a tiny shape, which its command does not offer.
BENCHMARK = """
import sys
from pathlib import Path
from benchmarks.gpu import measure
from benchmarks.random_models import Shape, make_bundle
shape = Shape("tiny", 2, 64, 4, 2, 96, 320, True)
bundle = make_bundle(shape, Path(sys.argv[1]), target="cuda-sm_90")
print("\\n".join(measure(shape, bundle, "cuda-sm_90", 1).lines()))
"""


def test_the_benchmark_runs(emulation: dict[str, str], tmp_path: Path) -> None:
    """Whole, but for the others' figures; it times the emulation."""
    command = [sys.executable, "-c", BENCHMARK, str(tmp_path)]
    folder, environment = HERE.parents[1], {**os.environ, **emulation}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\| tiny on .+: decode \| [\d.]+ tokens/s \|", lines[0])
    assert {"| T(4)/T(1)", "| T(64)/T(1)", "| processor time a token"} <= {
        line.rsplit(" | ", 1)[0] for line in lines
    }
