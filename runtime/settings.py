"""What one generation was asked to do. Values are checked here, once, before anything runs."""

import math
from dataclasses import dataclass, field

from forerun.errors import OptionError

MAX_SEED = 2**64 - 1
MANY = 256  # a top_k above this touches so many blocks of the vocabulary that computing all costs less


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits; see `sample.py` for the definition. Temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise OptionError(f"temperature is {self.temperature}; it must be a number of 0 (greedy) or more")
        if self.top_k < 0:
            raise OptionError(f"top_k is {self.top_k}; it must be 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p is {self.top_p}; it must be above 0 and at most 1 (all tokens)")
        if not 0 <= self.seed <= MAX_SEED:
            raise OptionError(f"seed is {self.seed}; it must be between 0 and 2^64 - 1")

    @property
    def looks_at_few(self) -> bool:
        """Whether few logits decide the draw: the largest, the largest few, or those that the noise can lift.
        top_p on its own needs the sum over all."""
        return self.temperature == 0 or 0 < self.top_k <= MANY or (self.top_k == 0 and self.top_p == 1)


@dataclass(frozen=True)
class Settings:
    """Limits of one answer. `end_token_ids` end it (they are part of the ids, never of the text)."""

    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    end_token_ids: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise OptionError(f"max_tokens is {self.max_tokens}; it must be 0 or more")
        if any(not text for text in self.stop):
            raise OptionError("a stop string is empty; it would stop every answer at once")
