"""Where the time of a forward goes, as the native core measures it, and how fast memory can be read.

Legend of shapes: T threads, L layers, N kernels of the program.
"""

import ctypes
from ctypes import byref
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from forerun.errors import RuntimeFailure
from forerun.runtime.library import Handle, NativeKernel, check, load_library

_OWN, _WEIGHTS = 0, 1  # forerun_memory


@dataclass(frozen=True)
class Kernel:
    """One kernel of a module of the program, and what it reads in one layer beside activations."""

    module: str
    name: str
    call_bytes: int  # weights read once a call, however many rows
    row_bytes: int  # weights looked up for each row
    position_bytes: int  # KV cache read for each position attended to
    window: int = 0  # positions that each row sees, 0: all

    def bytes_read(self, rows: int, positions: int) -> int:
        """Bytes of one layer in a call of `rows` rows of one sequence that attend to `positions` positions.

        Everything counts once, however often a kernel comes back to it: what it comes back to is in a cache.
        """
        seen = min(positions, self.window + rows - 1) if self.window else positions
        return self.call_bytes + rows * self.row_bytes + seen * self.position_bytes


@dataclass(frozen=True)
class Times:
    """Milliseconds of one forward. A thread's times add up to the forward's."""

    ran_ms: np.ndarray  # [T, L, N] float64: in a kernel; embed and head are at layer 0
    waited_ms: np.ndarray  # [T, L, N] float64: at the barrier behind it
    core_ms: np.ndarray  # [T] float64: everything else


class Profiler:
    """Times the kernels of a session's forwards, from its making until `close`."""

    def __init__(self, session: Handle, program: Handle, threads: int, layers: int) -> None:
        """`session` is the native session, `program` its bundle; see `Session.profiler`.

        Raises `RuntimeFailure` for a program that marks no kernels, or where a profiler is open already.
        """
        self._library = load_library()
        self._session = session
        self.kernels = read_kernels(program)
        check(self._library.forerun_profile_open(session.pointer))
        self._ran = np.zeros((threads, layers, len(self.kernels)), np.uint64)
        self._waited = np.zeros_like(self._ran)
        self._core = np.zeros(threads, np.uint64)

    def read(self) -> Times:
        """The times of the last forward. Raises `RuntimeFailure` before the first one."""
        addresses = (array.ctypes.data for array in (self._ran, self._waited, self._core))
        check(self._library.forerun_profile_read(self._session.pointer, *addresses))
        return Times(self._ran / 1e6, self._waited / 1e6, self._core / 1e6)

    def read_bandwidth(self, read_bytes: int, passes: int, *, weights: bool = False) -> float:
        """GB/s (10⁹ bytes a second) at which the session's threads read `read_bytes` bytes again and again.

        The median of `passes` passes, each thread reading a part of its own as fast as it can: from memory of
        its own in large pages, which is the machine's limit, or from the bundle's `weights` as they are mapped.
        Raises `RuntimeFailure` for less than 512 bytes a thread or more than there are weights.
        """
        if passes < 1:
            raise RuntimeFailure(f"passes is {passes}; it must be 1 or more")
        times_ns = np.zeros(passes, np.uint64)
        where, address = _WEIGHTS if weights else _OWN, times_ns.ctypes.data
        check(self._library.forerun_measure_read(self._session.pointer, where, read_bytes, passes, address))
        return read_bytes / float(np.median(times_ns))

    def close(self) -> None:
        """Stop timing; forwards are as fast as before."""
        check(self._library.forerun_profile_close(self._session.pointer))

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_kernels(program: Handle) -> tuple[Kernel, ...]:
    """The kernels of an opened bundle, in the order in which its modules run them."""
    library, count, facts = load_library(), ctypes.c_int32(), NativeKernel()
    check(library.forerun_bundle_kernel_count(program.pointer, byref(count)))
    kernels = []
    for number in range(count.value):
        check(library.forerun_bundle_kernel(program.pointer, number, byref(facts)))
        sizes = (facts.call_bytes, facts.row_bytes, facts.position_bytes, facts.window)
        kernels.append(Kernel(facts.module.decode(), facts.name.decode(), *sizes))
    return tuple(kernels)
