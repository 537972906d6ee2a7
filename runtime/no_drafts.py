"""A session without draft networks."""

from typing import Any

from forerun.errors import OptionError
from forerun.runtime.planner import Planner


class NoDrafts:
    """What a session has until its model gives it the drafts of a bundle."""

    names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.planner = Planner()

    def open(self, name: str) -> Any:
        """Raises `OptionError`."""
        raise OptionError(
            f"this session has no draft {name!r}; load a bundle made with forerun compile --draft"
        )

    def close(self) -> None:
        """Nothing to close."""
