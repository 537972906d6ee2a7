"""The core's results as arrays that share its memory."""

import ctypes
from collections.abc import Sequence

import numpy as np

from forerun.runtime.library import Handle, NativeResult
from forerun.runtime.program import ModelConfig


class ResultViews:
    """Arrays over the results of a session's forwards; the session's memory lives as long as one of them does."""

    def __init__(self, handle: Handle, config: ModelConfig) -> None:
        self._handle = handle
        self._config = config
        self._logits: np.ndarray | None = None  # [max_rows, V]
        self._taps: np.ndarray | None = None  # flat

    def logits(self, result: NativeResult, count: int) -> np.ndarray:
        """[count, V] float32."""
        if self._logits is None:
            size = self._config.max_rows * self._config.vocabulary_size
            self._logits = self._view(result.logits, size).reshape(self._config.max_rows, -1)
        return self._logits[:count]

    def taps(self, result: NativeResult, layers: Sequence[int], count: int) -> dict[int, np.ndarray]:
        """Layer → [count, D] float32."""
        if not layers:
            return {}
        size = self._config.hidden_size
        if self._taps is None:
            self._taps = self._view(result.taps, self._config.layers * self._config.max_rows * size)
        taken = self._taps[: len(layers) * count * size].reshape(len(layers), count, size)
        return {layer: taken[index] for index, layer in enumerate(layers)}

    def _view(self, address: int, size: int) -> np.ndarray:
        memory = (ctypes.c_float * size).from_address(address)
        memory.owner = self._handle  # type: ignore[attr-defined]
        return np.ctypeslib.as_array(memory)
