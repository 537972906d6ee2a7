"""Kernels that choose which blocks of logits a draw will look at, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from device_runner import DEVICES, DeviceKernels

from forerun.compiler.gpu.draws import list_blocks, pick_blocks, score_blocks
from forerun.runtime.sample import gumbel, mix
from forerun.targets.gpu import GpuTarget


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("blocks", (1, 100, 256, 777))
def test_the_first_of_the_largest_maxima_is_picked(
    target: GpuTarget, blocks: int, rng: np.random.Generator
) -> None:
    rows = 7
    maxima = rng.standard_normal((rows, blocks)).astype(np.float32)
    maxima[1] = -np.inf
    maxima[2, rng.integers(0, blocks, 5)] = np.inf
    maxima[3] = np.float32(0.5)
    picked = np.full(rows + 1, -1, np.int32)
    DeviceKernels(target, [pick_blocks("pick", target, blocks)]).call("pick", maxima, picked, rows=rows)
    assert picked.tolist() == [*maxima.argmax(axis=1).tolist(), -1]


def key_of(seed: int, position: int) -> int:
    """Return `noise_key` of sampling.h."""
    mask = 2**64 - 1
    return mix(mix((seed + 0x9E3779B97F4A7C15) & mask) ^ (position * 0xD1B54A32D192ED03 & mask))


def draws_of(keys: list[int], inverses: list[float]) -> np.ndarray:
    """Return the table of draws [rows, 3]."""
    halves = [[key & 0xFFFFFFFF, key >> 32] for key in keys]
    bits = np.array(inverses, np.float32).view(np.uint32)
    return np.concatenate([np.array(halves, np.uint32), bits[:, None]], axis=1)


def floats_of(words: np.ndarray) -> np.ndarray:
    """Return the numbers that words in their order stand for."""
    return np.where(words >> 31, words ^ np.uint32(1 << 31), ~words).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("vocabulary", (5, 16 * 300, 16 * 300 - 11))
def test_scores_bound_what_noise_can_do(target: GpuTarget, vocabulary: int, rng: np.random.Generator) -> None:
    """No block's best logit can score more, and the bound is near: rounding aside, 0.06 above -log(1 - u)."""
    blocks, seed = -(-vocabulary // 16), int(rng.integers(0, 2**63)) * 2 + 1
    temperatures = [0.0, 1.0, 0.3, 1e3, 0.7]
    maxima = rng.standard_normal((5, blocks)).astype(np.float32) * 8
    draws = draws_of([key_of(seed, row) for row in range(5)], [1 / t if t else 0.0 for t in temperatures])
    words = np.zeros((6, blocks), np.uint32)
    DeviceKernels(target, [score_blocks("score", target, vocabulary)]).call(
        "score", maxima, draws, words, rows=5
    )
    assert not words[5].any(), "a row past the end was written"
    scores = floats_of(words).astype(np.float64)
    assert np.array_equal(scores[0], maxima[0])
    for row in range(1, 5):
        noise = np.array([gumbel(seed, row, token) for token in range(vocabulary)])
        padded = np.full(blocks * 16, -np.inf)
        padded[:vocabulary] = noise
        best = padded.reshape(blocks, 16).max(axis=1)
        exact = maxima[row].astype(np.float64) / temperatures[row]
        rounding = 1e-6 * (np.abs(exact) + 110)
        assert (scores[row] >= exact + best - rounding).all()
        loose = -np.log(-np.expm1(-np.exp(-best)))  # -log(1 - u) of the same u
        assert (scores[row] <= exact + loose + 0.06 + rounding).all()


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize(("blocks", "each"), ((1, 1), (100, 7), (256, 256), (3072, 32), (777, 64)))
def test_listed_blocks_are_those_of_the_highest_scores(
    target: GpuTarget, blocks: int, each: int, rng: np.random.Generator
) -> None:
    """Of equal ones the first, all in ascending order; whatever the words are."""
    rows = 7
    words = rng.integers(0, 2**32, (rows, blocks), np.uint32)
    words[1] = 0
    words[2] = 0xFFFFFFFF
    words[3] = rng.integers(0, 3, blocks)
    words[4] = np.arange(blocks) + 2**31 - 5
    words[5, blocks // 2 :] = 0xFFFFFFFF
    items = np.full((rows + 1, each), -1, np.int32)
    DeviceKernels(target, [list_blocks("list", target, blocks)]).call("list", words, items, each, rows=rows)
    order = np.argsort(-words.astype(np.int64), axis=1, kind="stable")[:, :each]
    assert np.array_equal(items[:rows], np.sort(order, axis=1))
    assert (items[rows] == -1).all()
