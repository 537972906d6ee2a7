"""A session without draft networks."""

from collections.abc import Callable
from typing import Any

from forerun.errors import OptionError
from forerun.runtime.costs import KeptCosts
from forerun.runtime.planner import Planner


class NoDrafts:
    """What a session has until its model gives it the drafts of a bundle, or for good."""

    names: tuple[str, ...] = ()

    def __init__(
        self,
        refusal: str = "this session has no drafts; load a bundle made with forerun compile --draft",
        kept: Callable[[], KeptCosts] | None = None,
    ) -> None:
        """`refusal` is what asking for a draft is answered with, `kept()` where costs are kept (None: nowhere)."""
        self.planner = Planner(kept)
        self._refusal = refusal

    def open(self, name: str) -> Any:
        """Raises `OptionError`."""
        raise OptionError(f"draft {name!r}: {self._refusal}")

    def close(self) -> None:
        """Nothing to close."""
