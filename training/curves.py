"""The course of a training as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forerun.training.trainer import Measured


def plot_curves(path: Path, name: str, log: Sequence[Measured]) -> bool:
    """Write a PNG of losses and of held-out agreement per position against steps; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    at = [line.step for line in log]
    left.plot(at, [line.loss for line in log], label="trained on")
    left.plot(at, [line.held_out_loss for line in log], label="held out")
    left.set(title=f"{name}: cross-entropy with the model", xlabel="step", ylabel="nats")
    left.legend()
    for place in range(max(len(line.agreement) for line in log)):
        right.plot(at, [line.agreement[place] for line in log], label=f"position {place + 1}")
    lengths = right.twinx()
    lengths.plot(at, [line.accepted_length for line in log], "k--", label="accepted length")
    lengths.set(ylabel="tokens a call")
    right.set(title="drafts that are right, held out", xlabel="step", ylabel="part", ylim=(0, 1))
    lines = right.get_lines() + lengths.get_lines()
    right.legend(lines, [line.get_label() for line in lines], loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True
