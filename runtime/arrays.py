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


def parent_array(parents: Sequence[int] | None, rows: int) -> np.ndarray | None:
    """The parents of `rows` rows as [rows] int32, None for a chain; raises `RuntimeFailure` for another number."""
    if parents is not None and len(parents) != rows:
        raise RuntimeFailure(f"{rows} rows but {len(parents)} parents")
    return None if parents is None else int32_array(parents, "parents")


def float_rows(given: np.ndarray, what: str, columns: int, rows: int | None = None) -> np.ndarray:
    """The rows as contiguous float32 [n, columns]; raises `RuntimeFailure` naming `what` has another shape.

    `rows` is the n that there must be, None for any.
    """
    numbers = np.ascontiguousarray(given, dtype=np.float32)
    if numbers.ndim != 2 or numbers.shape[1] != columns or rows not in (None, len(numbers)):
        wanted = f"[{'n' if rows is None else rows}, {columns}]"
        raise RuntimeFailure(f"{what} have shape {list(numbers.shape)}, not {wanted}")
    return numbers


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
