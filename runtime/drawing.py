"""What a session draws tokens with; `sample.py` defines which tokens these are."""

import ctypes
from collections.abc import Sequence
from ctypes import byref

import numpy as np

from forerun.errors import OptionError, RuntimeFailure
from forerun.runtime.arrays import address_of
from forerun.runtime.library import (
    MAX_INT32,
    MOST_CHOICES,
    NativeChoice,
    NativeDraftLogits,
    NativeSampling,
    Status,
    check,
)
from forerun.runtime.program import ModelConfig
from forerun.runtime.protocol import Drawable
from forerun.runtime.settings import Sampling


def native_samplings(sampling: Sequence[Sampling], rows: int) -> ctypes.Array[NativeSampling] | None:
    """How each of a forward's rows will be drawn from, for the core; None where that is not said.

    Raises `RuntimeFailure` if it is said of more rows or fewer.
    """
    if not sampling:
        return None
    if len(sampling) != rows:
        raise RuntimeFailure(f"sampling for {len(sampling)} rows; the forward asks for {rows}")
    return (NativeSampling * rows)(
        *(NativeSampling(one.temperature, min(one.top_k, MAX_INT32), one.top_p, one.seed) for one in sampling)
    )


class Drawing:
    """The part of a session that draws; the rest of it has the library, the pointer and the config."""

    config: ModelConfig
    _library: ctypes.CDLL

    @property
    def pointer(self) -> int:
        raise NotImplementedError

    def _make_buffers(self) -> None:
        self._token_id = ctypes.c_int32()
        self._sampling = NativeSampling()
        self._draft_logits = NativeDraftLogits()
        self._choices = (NativeChoice * MOST_CHOICES)()

    def sample(
        self, logits: np.ndarray, *, temperature: float, top_k: int, top_p: float, seed: int, position: int
    ) -> int:
        """Draw the token at absolute `position` from `logits` ([V] float32); `sample.py` defines which.

        Raises `OptionError` for a setting out of range, `RuntimeFailure` for logits that hold NaN.
        """
        if logits.shape != (self.config.vocabulary_size,):
            raise RuntimeFailure(f"logits have shape {logits.shape}, not [{self.config.vocabulary_size}]")
        numbers = np.ascontiguousarray(logits, dtype=np.float32)
        self._set_sampling(temperature, top_k, top_p, seed)
        status = self._library.forerun_sample(
            self.pointer, address_of(numbers), byref(self._sampling), position, byref(self._token_id)
        )
        check(status, OptionError if status == Status.INVALID_ARGUMENT else RuntimeFailure)
        return self._token_id.value

    def draw(
        self, row: Drawable, *, temperature: float, top_k: int, top_p: float, seed: int, position: int
    ) -> int:
        """Draw the token at absolute `position` from a row of the last `forward`, which asked for `draws`: the
        token that `sample` would draw from its logits.

        Raises as `sample` does, and `OptionError` for a row that the last forward does not have.
        """
        self._set_sampling(temperature, top_k, top_p, seed)
        status = self._library.forerun_draw(
            self.pointer, row.index, byref(self._sampling), position, byref(self._token_id)
        )
        check(status, OptionError if status == Status.INVALID_ARGUMENT else RuntimeFailure)
        return self._token_id.value

    def rank(
        self,
        logits: np.ndarray,
        count: int,
        sampling: Sampling,
        position: int,
        token_ids: np.ndarray | None = None,
    ) -> list[tuple[int, float]]:
        """The up to `count` best of a draft's logits ([at most V] float32); `rank_tokens` in `sample.py` defines which.
        `token_ids` are int32.

        Raises `OptionError` for a setting out of range, `RuntimeFailure` for logits that hold NaN.
        """
        given = self._draft_logits
        given.values, given.count = logits.ctypes.data, len(logits)
        given.named = len(logits) if token_ids is None else len(token_ids)
        given.token_ids = address_of(token_ids)
        self._set_sampling(sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed)
        status = self._library.forerun_rank(
            self.pointer,
            byref(given),
            byref(self._sampling),
            position,
            min(count, MOST_CHOICES),
            self._choices,
            byref(self._token_id),
        )
        check(status, OptionError if status == Status.INVALID_ARGUMENT else RuntimeFailure)
        return [(choice.index, choice.probability) for choice in self._choices[: self._token_id.value]]

    def _set_sampling(self, temperature: float, top_k: int, top_p: float, seed: int) -> None:
        sampling = self._sampling
        sampling.temperature, sampling.top_k, sampling.top_p = temperature, min(top_k, MAX_INT32), top_p
        sampling.seed = seed
