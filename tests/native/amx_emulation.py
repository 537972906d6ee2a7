"""AMX instructions on processors without them, for tests: the emulator of amx_emulator.c in this process."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
KINDS = ("configure", "release", "zero", "load", "store", "multiply")  # those of amx_emulator.c


def build(name: str, folder: Path) -> Path:
    """Build one of the C files here as a shared library."""
    library = folder / f"{name}.so"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command = ["cc", *flags, str(HERE / f"{name}.c"), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True)
    return library


class Emulator:
    """The emulator's library."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(str(build("amx_emulator", folder)))
        self._library.amx_count.restype = ctypes.c_int64

    @contextmanager
    def running(self) -> Iterator[None]:
        """Execute the AMX instructions of every thread meanwhile."""
        assert self._library.amx_install() == 0
        try:
            yield
        finally:
            self._library.amx_uninstall()

    def counts(self) -> dict[str, int]:
        """Return how many instructions were executed so far, by kind."""
        return {kind: self._library.amx_count(place) for place, kind in enumerate(KINDS)}

    def configured(self) -> bool:
        """Return whether this thread's tiles are configured."""
        return bool(self._library.amx_configured())
