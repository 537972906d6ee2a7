"""Leave when the head is already sure (in the manner of CALM, Schuster et al., 2022). Changes the output."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from forerun.errors import OptionError
from forerun.runtime.protocol import Evidence


class Confidence:
    """A row leaves after one of `layers` when the top probability of the head there is above `threshold`.

    Layers count from 0. With none given there is one exit, after two thirds of the layers. A threshold above
    1 is never passed.
    """

    name: ClassVar[str] = "confidence"
    summary: ClassVar[str] = "leave after one of `layers` when the top probability passes `threshold` (lossy)"
    wants_hidden: ClassVar[bool] = False

    def __init__(self, layers: tuple[int, ...] = (), threshold: float = 0.9) -> None:
        if not threshold >= 0:
            raise OptionError(f"exit policy 'confidence': threshold is {threshold}; it must be 0 or more")
        self.layers = layers
        self.threshold = threshold

    def points(self, layers: int) -> tuple[int, ...]:
        """The exit layers, checked against a model of `layers` layers."""
        wanted = self.layers or (max(2 * layers // 3 - 1, 0),)
        last = layers - 2
        if sorted(set(wanted)) != list(wanted) or wanted[0] < 0 or wanted[-1] > last:
            shown = "+".join(map(str, wanted))
            raise OptionError(
                f"exit policy 'confidence': layers is {shown}; they must ascend and lie between 0 and {last}"
                f" (the model has {layers} layers)"
            )
        return wanted

    def leaving(self, evidence: Evidence) -> Sequence[bool]:
        """Rows whose top probability is above the threshold."""
        return [top_probability(row) > self.threshold for row in evidence.logits]


def top_probability(logits: np.ndarray) -> float:
    """The largest softmax probability of one row ([V] float32), at temperature 1.

    Takes one row at a time: a sum over several could be split differently, and a row must not depend on
    others.
    """
    largest = logits.max()
    total = float(np.exp(logits - largest, dtype=np.float32).sum(dtype=np.float64))
    return 1.0 / total if math.isfinite(total) else 0.0
