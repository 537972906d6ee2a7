"""What the core asks of a device's driver, and what becomes of a device that fails: one error, nothing left behind."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from device_shim import build_shim, calls, driver_path, left_over
from test_device_bundles import compile_tiny, needs_device

from forerun.runtime.library import Status
from forerun.targets import TARGETS

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim is written for x86-64")
DEVICES = ("opencl", "webgpu", "cuda-sm_90")

# Loads the bundle for its device, answers twice, and answers on the CPU; prints what became of each.
RUN = """
import json, sys, forerun
from forerun.errors import ForerunError
def attempt(run):
    try:
        return {"ids": run()}
    except ForerunError as error:
        return {"error": str(error), "status": error.status}
def answer(model):
    return model.generate([1, 2, 3, 4, 5], max_tokens=6, ignore_end=True, drafter="lookup").complete().ids
found = []
def use():
    with forerun.load(sys.argv[1], target=sys.argv[2]) as model:
        found.append(attempt(lambda: answer(model)))
        found.append(attempt(lambda: answer(model)))
opened = attempt(use)
with forerun.load(sys.argv[1]) as model:
    found.append(attempt(lambda: answer(model)))
print(json.dumps([opened, *found]))
"""


def interface_of(target: str) -> str:
    """Return through what a target's kernels are run."""
    return str(TARGETS[target].device)  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=DEVICES)
def target(request: pytest.FixtureRequest) -> str:
    needs_device(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tiny(tmp_path_factory.mktemp("failures"), target, "qwen2", "q4", "f16")


@pytest.fixture(scope="module")
def shim(target: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    device = interface_of(target)
    folder = tmp_path_factory.mktemp("shim")
    driver = driver_path(device, os.environ.get("FORERUN_WGPU", ""))
    return {**build_shim(device, folder), "SHIM_DRIVER": driver, "SHIM_REPORT": str(folder / "report")}


def run(bundle: Path, target: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", RUN, str(bundle), target]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("fail_from", (3, 5, 8))
def test_a_device_that_is_lost(bundle: Path, target: str, shim: dict[str, str], fail_from: int) -> None:
    """Found by the answer under way and told by every later one; without it there is no error."""
    whole = run(bundle, target, {**shim, "SHIM_FAIL_FROM": "0"})
    assert all("error" not in each for each in whole)
    assert not left_over(interface_of(target), Path(shim["SHIM_REPORT"]))
    opened, *answers = run(bundle, target, {**shim, "SHIM_FAIL_FROM": str(fail_from)})
    failed = [each for each in (opened, *answers) if "error" in each]
    assert failed and answers[-1] == whole[-1]
    assert all(each["status"] == Status.DEVICE and "failed" in each["error"] for each in failed)
    assert not left_over(interface_of(target), Path(shim["SHIM_REPORT"]))
    if "error" not in opened:
        assert "error" in answers[1]


@pytest.mark.parametrize("number", (1, 20, 40))
def test_a_device_without_memory(bundle: Path, target: str, shim: dict[str, str], number: int) -> None:
    if target == "webgpu":
        pytest.skip("wgpu-native tells of it as of every error")
    settings = {"SHIM_FAIL_FROM": "0", "SHIM_NO_MEMORY": str(number)}
    opened, answer = run(bundle, target, {**shim, **settings})
    assert opened["status"] == Status.OUT_OF_MEMORY and "no memory on" in opened["error"]
    assert "ids" in answer
    assert not left_over(interface_of(target), Path(shim["SHIM_REPORT"]))


TUNE = """
import sys
from forerun.cli import main
command = ["tune", sys.argv[1], "--target", sys.argv[2], "--tuning", sys.argv[3], "--seconds", sys.argv[4]]
sys.exit(main(command))
"""


@pytest.mark.parametrize(("fail_from", "seconds"), ((0, "4"), (1, "600"), (8, "600")))
def test_a_search_gives_back_what_it_took(
    bundle: Path, target: str, shim: dict[str, str], tmp_path: Path, fail_from: int, seconds: str
) -> None:
    """Where its time is over, and where the device fails at first or later, which it says."""
    export = bundle.parent / "export"
    command = [sys.executable, "-c", TUNE, str(export), target, str(tmp_path), seconds]
    environment = {**os.environ, **shim, "SHIM_FAIL_FROM": str(fail_from)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == (2 if fail_from else 0), done.stderr
    assert ("failed" in done.stderr) == bool(fail_from)
    assert calls(Path(shim["SHIM_REPORT"]))
    assert not left_over(interface_of(target), Path(shim["SHIM_REPORT"]))


ANSWER = """
import json, sys, forerun
with forerun.load(sys.argv[1], target=sys.argv[2]) as model:
    count = int(sys.argv[3])
    answer = model.generate([1, 2, 3, 4, 5], max_tokens=count, ignore_end=True, **json.loads(sys.argv[4]))
    assert len(answer.complete().ids) == count
"""
WAITS = {"opencl": "clFinish", "webgpu": "wgpuBufferMapAsync", "cuda": "cuStreamSynchronize"}


def calls_of_answers(
    bundle: Path, target: str, shim: dict[str, str], **options: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """Return what answers of 10 and of 30 tokens without drafts call of the driver."""
    found = []
    for count in (10, 30):
        command = [sys.executable, "-c", ANSWER, str(bundle), target, str(count)]
        given = json.dumps({"drafter": "none", **options})
        subprocess.run([*command, given], check=True, env={**os.environ, **shim, "SHIM_FAIL_FROM": "0"})
        found.append(calls(Path(shim["SHIM_REPORT"])))
    return found[0], found[1]


def waits_of(bundle: Path, target: str, shim: dict[str, str], **options: Any) -> int:
    """Return how often the last 20 tokens of an answer waited for the device."""
    few, many = calls_of_answers(bundle, target, shim, **options)
    wait = WAITS[interface_of(target)]
    return many[wait] - few[wait]


@pytest.fixture(scope="module")
def wide(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of more blocks than come along with a call."""
    return compile_tiny(tmp_path_factory.mktemp("wide"), target, "qwen2", "q4", "f16", vocab_size=1995)


@pytest.mark.parametrize(
    "options",
    (
        {},
        {"temperature": 0.7},
        {"temperature": 1.0, "seed": 5},
        {"temperature": 0.8, "top_k": 40, "top_p": 0.9},
    ),
    ids=("greedy", "cool", "plain", "top_k"),
)
@pytest.mark.parametrize("loop", ("native", "python"))
def test_a_token_waits_for_the_device_once(
    wide: Path, target: str, shim: dict[str, str], options: dict[str, float], loop: str
) -> None:
    """The blocks of logits that a draw looks at come with the maxima."""
    assert waits_of(wide, target, shim, loop=loop, **options) == 20


def test_more_blocks_than_come_along_are_waited_for(wide: Path, target: str, shim: dict[str, str]) -> None:
    assert waits_of(wide, target, shim, temperature=1.0, top_k=200) > 20


@pytest.mark.parametrize("temperature", (0.0, 0.7))
def test_a_token_is_one_graph(bundle: Path, target: str, shim: dict[str, str], temperature: float) -> None:
    """From the third one of its kind on, when the second was recorded."""
    if interface_of(target) != "cuda":
        pytest.skip("only CUDA has graphs")
    few, many = calls_of_answers(bundle, target, shim, temperature=temperature)
    assert few["cuGraphInstantiateWithFlags"] == many["cuGraphInstantiateWithFlags"] > 0
    more = {name: many[name] - count for name, count in few.items() if many[name] != count}
    assert more.pop("cuCtxSetCurrent") >= 0
    assert more == {"cuGraphLaunch": 20, "cuStreamSynchronize": 20}
