"""Tiny networks of every structure on devices run by this machine, against ONNX Runtime."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from device_network import DeviceNetwork
from device_runner import DEVICES
from tiny_models import VARIANTS, write_folder

from forerun.export import export_model
from forerun.export.check import tree_inputs
from forerun.export.oracle import Oracle
from forerun.targets import opencl
from forerun.targets.gpu import GpuTarget

# One for each kind of layer that has kernels of its own: tied and biased, norms of queries and keys, windows with
# norms after sublayers and GeGLU, a layer without rotation, joined weights, factors.
STRUCTURES = ("qwen2", "qwen3", "gemma3", "smollm3", "phi3", "granite")
# Phones' variants differ in numbers alone, which one structure and one scheme show.
PHONES = (opencl.ADRENO, opencl.MALI)
TREE = (-1, 0, 0, 1, 3, 2, -1)


def name_of(parameter: str | GpuTarget) -> str:
    return getattr(parameter, "name", str(parameter))


def run(network: DeviceNetwork, prompt: np.ndarray, drafted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of a prompt's rows and of a tree after it."""
    length = len(prompt)
    in_place = np.arange(length, dtype=np.int32)
    first = network.forward(prompt, in_place, in_place, [[] for _ in prompt])
    branches: list[list[int]] = []
    for row, parent in enumerate(TREE):
        branches.append([*(branches[parent] if parent >= 0 else []), length + row])
    positions = np.array([length - 1 + len(branch) for branch in branches], np.int32)
    slots = length + np.arange(len(TREE), dtype=np.int32)
    return first, network.forward(drafted, positions, slots, branches)


@pytest.mark.parametrize(
    ("variant", "target"), [*product(STRUCTURES, DEVICES), *product(("qwen3",), PHONES)], ids=name_of
)
def test_every_structure_equals_onnx_runtime(
    variant: str, target: GpuTarget, tmp_path: Path, rng: np.random.Generator
) -> None:
    """float32 throughout; the prompt is longer than a window and than a block of positions."""
    changes = {**VARIANTS[variant], "max_position_embeddings": 256}
    write_folder(tmp_path / "model", seed=int(rng.integers(1000)), **changes)
    export = export_model(tmp_path / "model", tmp_path / "export", "f32").directory
    prompt, drafted = rng.integers(0, 288, 140), rng.integers(0, 288, len(TREE))
    ours = run(DeviceNetwork(target, export, "float32"), prompt, drafted)
    oracle = Oracle(export)
    theirs = oracle.forward(prompt)
    positions, mask = tree_inputs(TREE, len(prompt))
    tree = oracle.forward(drafted, positions, mask, theirs.present)
    np.testing.assert_allclose(ours[0], theirs.logits, atol=1e-4)
    np.testing.assert_allclose(ours[1], tree.logits, atol=1e-4)


@pytest.mark.parametrize(
    ("quant", "target"),
    [*product(("q8", "q6", "q5", "q4"), DEVICES), *product(("q4",), PHONES)],
    ids=name_of,
)
def test_quantized_networks_stay_near_onnx_runtime(
    quant: str, target: GpuTarget, tmp_path: Path, rng: np.random.Generator
) -> None:
    """int8 activations are off by up to 1/254 of the largest of 16: some per cent of a random model's logits."""
    write_folder(tmp_path / "model", seed=int(rng.integers(1000)), **VARIANTS["qwen2"])
    export = export_model(tmp_path / "model", tmp_path / "export", quant).directory
    prompt, drafted = rng.integers(0, 288, 21), rng.integers(0, 288, len(TREE))
    network = DeviceNetwork(target, export, "float16")
    ours = run(network, prompt, drafted)[0]
    theirs = Oracle(export).forward(prompt).logits
    assert np.sqrt(((ours - theirs) ** 2).mean()) < 0.05 * theirs.std()
    in_place = np.arange(len(prompt), dtype=np.int32)
    alone = network.forward(prompt[:1], in_place[:1], in_place[:1], [[]])
    assert np.array_equal(alone[0].view(np.uint32), ours[0].view(np.uint32)), (
        "a row depends on those beside it"
    )
