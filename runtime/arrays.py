"""Lists of numbers as the native core takes them."""

from collections.abc import Sequence

import numpy as np

from forerun.errors import RuntimeFailure
from forerun.runtime.program import Step

# Step tuples whose numbers are remembered: a loop uses a handful, again and again.
_REMEMBERED = 64


def int32_array(values: Sequence[int], what: str) -> np.ndarray:
    """The values as [n] int32; raises `RuntimeFailure` naming `what` they are where they do not fit."""
    try:
        return np.array(values, np.int32)
    except (OverflowError, TypeError, ValueError) as error:
        raise RuntimeFailure(f"{what} must be whole numbers of 32 bits: {error}") from error


def address_of(array: np.ndarray | None) -> int | None:
    """Where the array's elements lie; None for none."""
    return None if array is None else array.ctypes.data


class StepNumbers:
    """Sublayer numbers of steps, remembered for tuples, which cannot change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Sequence[Step], np.ndarray]] = {}

    def of(self, steps: Sequence[Step] | None) -> np.ndarray | None:
        """The numbers [n] int32 of the steps; None, which stands for the whole model, for None."""
        if steps is None:
            return None
        known = self._known.get(id(steps))
        if known is not None and known[0] is steps:
            return known[1]
        numbers = int32_array([step.sublayer for step in steps], "steps")
        if isinstance(steps, tuple):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[id(steps)] = (steps, numbers)
        return numbers
