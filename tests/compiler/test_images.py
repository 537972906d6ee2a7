"""Packed weights as images, for devices that read those faster: the bits of the kernels that read memory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_runner import IMAGES
from device_shim import build_shim, calls, driver_path, left_over
from test_device_bundles import compile_tiny, needs_device
from test_device_failures import run
from test_slabs import results_of
from tiny_models import VOCABULARY_SIZE

from forerun import targets
from forerun.compiler import pipeline
from forerun.runtime.library import Status
from forerun.targets import TARGETS
from forerun.targets.opencl import ADRENO


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with 4-bit weights, which `opencl` reads as images."""
    needs_device("opencl")
    with pytest.MonkeyPatch.context() as patch:
        for module in (targets, pipeline):
            patch.setattr(module, "TARGETS", {**TARGETS, "opencl": replace(IMAGES, name="opencl")})
        return compile_tiny(tmp_path_factory.mktemp("images"), "opencl", "qwen2", "q4", "f16")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("shim")
    environment = {**build_shim("opencl", folder), "SHIM_DRIVER": driver_path("opencl", "")}
    return {**environment, "SHIM_REPORT": str(folder / "report"), "SHIM_FAIL_FROM": "0"}


def test_a_model_with_images_computes_the_same_bits(
    bundle: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    source = (bundle / "src" / "opencl.c").read_text(encoding="utf-8")
    assert "__read_only image1d_buffer_t weights_ptr" in source and ADRENO.computes == IMAGES.computes
    plain = compile_tiny(tmp_path, "opencl", "qwen2", "q4", "f16")
    assert "image1d_buffer_t" not in (plain / "src" / "opencl.c").read_text(encoding="utf-8")
    ids = rng.integers(0, VOCABULARY_SIZE, 90).tolist()
    assert results_of(bundle, "opencl", ids) == results_of(plain, "opencl", ids)


def test_images_are_made_once_and_given_back(bundle: Path, shim: dict[str, str]) -> None:
    """One of each weight that is read, whatever is answered, and none where the device is lost."""
    counts = []
    for fail_from in ("0", "5"):
        found = run(bundle, "opencl", {**shim, "SHIM_FAIL_FROM": fail_from})
        assert any("error" in each for each in found) == (fail_from != "0")
        counts.append(calls(Path(shim["SHIM_REPORT"])))
        assert not left_over("opencl", Path(shim["SHIM_REPORT"]))
    assert 0 < counts[0]["clCreateImage"] < counts[0]["clCreateBuffer"]
    assert counts[0]["clEnqueueNDRangeKernel"] > 10 * counts[0]["clCreateImage"]


@pytest.mark.parametrize("limit", ({"SHIM_NO_IMAGES": "1"}, {"SHIM_TEXELS": "100"}), ids=("none", "small"))
def test_a_device_that_cannot_read_them(bundle: Path, shim: dict[str, str], limit: dict[str, str]) -> None:
    """One sentence, and the CPU goes on."""
    opened, answer = run(bundle, "opencl", {**os.environ, **shim, **limit})
    assert opened["status"] == Status.DEVICE and "ids" in answer
    assert f"reads images of at most {limit.get('SHIM_TEXELS', '0')} words" in opened["error"]
    assert "compile for opencl or opencl-arm64" in opened["error"]
