"""`forerun bench --profile` on the tiny decoder: sums, tables, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Forerun, check_error
from tiny_bundle import make_tiny_bundle
from tiny_model import HIDDEN, LAYERS, VOCABULARY

from forerun.cli.profile_table import BAR_WIDTH, bar


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_bundle(tmp_path_factory.mktemp("profile")))


def profiles(forerun: Forerun, tiny: str, *options: str) -> list[dict[str, Any]]:
    done = forerun("bench", tiny, "--profile", "--json", "--repetitions", "2", "--threads", "2", *options)
    assert done.code == 0, done.err
    result: list[dict[str, Any]] = json.loads(done.out)
    return result


def test_parts_add_up(forerun: Forerun, tiny: str) -> None:
    found = profiles(forerun, tiny, "--rows", "1,3", "--contexts", "40,8")
    assert [(one["rows"], one["context"]) for one in found] == [(1, 8), (3, 8), (1, 40), (3, 40)]
    for one in found:
        for parts in (one["kernels"], one["layers"]):
            assert sum(part["ms"] for part in parts) + one["core_ms"] == pytest.approx(one["profiled_ms"])
            assert sum(part["bytes"] for part in parts) == one["bytes"]
            assert all(0 <= part["waited_ms"] <= part["ms"] for part in parts)
        assert one["threads"] == 2
        assert one["reached"] == pytest.approx(one["floor_ms"] / one["call_ms"])
        assert one["floor_ms"] == pytest.approx(one["bytes"] / one["read_gb_per_s"] / 1e6)
        assert [part["name"] for part in one["layers"]] == ["embed", "0", "1", "2", "head"]
        assert one["kernels"] == sorted(one["kernels"], key=lambda part: -part["ms"])


def test_bytes_grow_with_rows_and_context(forerun: Forerun, tiny: str) -> None:
    found = {
        (one["rows"], one["context"]): {part["name"]: part for part in one["kernels"]}
        for one in profiles(forerun, tiny, "--rows", "1,3", "--contexts", "8,40")
    }
    for (rows, context), kernels in found.items():
        assert kernels["embed_rows"]["bytes"] == rows * 4 * HIDDEN
        assert kernels["attend"]["bytes"] == LAYERS * (rows + context) * 48
        assert kernels["attend"]["layers"] == LAYERS
        assert kernels["maxima"]["bytes"] == 4 * HIDDEN * VOCABULARY
        assert kernels["maxima"]["layers"] == 1


def test_the_table_shows_kernels_layers_and_the_floor(forerun: Forerun, tiny: str) -> None:
    done = forerun("bench", tiny, "--profile", "--repetitions", "1", "--threads", "1")
    assert done.code == 0, done.err
    for word in (
        "1 row at context 128, 1 threads",
        "floor",
        "% reached",
        "GB/s",
        "attend",
        "maxima",
        "waking",
    ):
        assert word in done.out
    assert "█" * BAR_WIDTH in done.out


def test_profiles_that_do_not_fit_are_refused(forerun: Forerun, tiny: str) -> None:
    check_error(forerun("bench", tiny, "--profile", "--rows", "13"), "13 rows", "at most 12")
    check_error(forerun("bench", tiny, "--profile", "--contexts", "200"), "200 positions")
    check_error(forerun("bench", tiny, "--profile", "--contexts", "x"), "--contexts", "whole numbers")
    check_error(forerun("bench", tiny, "--profile", "--contexts", "0"), "at least 1")
    check_error(forerun("bench", tiny, "--profile", "--context", "64"), "leave --context out")
    check_error(forerun("bench", tiny, "--profile", "--repetitions", "0"), "--repetitions")


def test_a_missing_bundle_is_said(forerun: Forerun, tmp_path: Path) -> None:
    check_error(forerun("bench", str(tmp_path / "none"), "--profile"), "none")


@pytest.mark.parametrize(("part", "cells"), [(1.0, BAR_WIDTH), (0.5, BAR_WIDTH // 2), (0.0, 0)])
def test_bars_are_as_long_as_the_part(part: float, cells: int) -> None:
    assert bar(part) == ("█" * cells).ljust(BAR_WIDTH)
