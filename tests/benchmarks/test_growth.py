"""The growth benchmark on a model of two small layers: its numbers, its verdict, its text."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.growth import Measured, distance, draw_plot, measure, open_places, report
from benchmarks.random_models import Shape, make_bundle

TINY = Shape("tiny", 2, 64, 4, 2, 96, 320, True)


def measured(ratio: float, context: int = 128, size: int = 40_000_000) -> Measured:
    return Measured("model", context, size, ratio * size / 40e6, 40.0, ratio, ratio - 0.1, ratio + 0.1)


def test_measuring_a_random_model(tmp_path: Path) -> None:
    bundle = make_bundle(TINY, tmp_path)
    assert not (tmp_path / "tiny-model").exists()
    with ExitStack() as stack:
        places = open_places(stack, bundle, "tiny", (64, 16), threads=2)
        short, long = measure(places, repetitions=2)
        assert [place.session.length(place.sequence) for place in places] == [16, 64]
    assert (short.context, long.context) == (16, 64)
    # Halves of keys and values, two heads of 16, two layers.
    assert long.bytes - short.bytes == (64 - 16) * 2 * 2 * 2 * 16 * 2
    for row in (short, long):
        assert row.low <= row.ratio <= row.high
        assert row.ms > 0
        assert row.floor_ms == pytest.approx(row.bytes / row.gb_per_s / 1e6)
    assert make_bundle(TINY, tmp_path) == bundle


def test_distance_is_seen_from_the_first_point() -> None:
    assert distance([measured(1.2), measured(1.2), measured(1.2)]) == pytest.approx(0)
    assert distance([measured(1.2), measured(1.5)]) == pytest.approx(0.25)
    assert distance([measured(1.2), measured(0.9)]) == pytest.approx(0.25)


def test_the_report_says_whether_the_bar_is_met() -> None:
    text = report([measured(1.2), measured(1.3)], [measured(1.2), measured(1.5, 2048)], ["machine"])
    assert "at most 8 % from" in text
    assert "within the bar of 15 %" in text
    assert "at most 25 % from" in text
    assert "outside the bar" in text
    assert "| model | 2048 | 40.0 | 1.50 | 40.0 | 1.00 | 1.50 | 1.40–1.60 |" in text


def test_the_plot_is_drawn_where_it_can_be(tmp_path: Path) -> None:
    rows = [measured(1.2), measured(1.3, 512, 80_000_000)]
    assert draw_plot(rows, rows, tmp_path / "growth.png") == (tmp_path / "growth.png").exists()
