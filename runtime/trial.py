"""Kernels for a device tried by themselves, for `forerun tune`; what the calls mean is in `forerun/measure.h`."""

import ctypes
from collections.abc import Sequence

from forerun.runtime.library import check, load_library


class NativeTrialArray(ctypes.Structure):
    """`forerun_trial_array`."""

    _fields_ = (("bytes", ctypes.c_uint64), ("copies", ctypes.c_int32))


class Trial:
    """The kernels of a program on its device, and the memory that they are tried on.

    Args:
        program: address of a `forerun_device_program`, which has to outlive this.
        arrays: for each parameter of the kernels but the rows, bytes (a multiple of 4) and how many copies of them
            calls take in turns; 0 copies are the number 0.

    Raises:
        TargetError: there is no such device, or it refuses a kernel.
        RuntimeFailure: its memory does not suffice.
    """

    def __init__(self, program: int, arrays: Sequence[tuple[int, int]]) -> None:
        self._library, self._pointer = load_library(), ctypes.c_void_p()
        listed = (NativeTrialArray * len(arrays))(*(NativeTrialArray(*one) for one in arrays))
        given = (ctypes.c_void_p(program), ctypes.addressof(listed), len(arrays))
        check(self._library.forerun_trial_create(*given, ctypes.byref(self._pointer)))

    def seconds(self, kernel: int, rows: int, calls: int) -> float:
        """Return the mean seconds of a call of a kernel for `rows` rows, over the last of three rounds of
        `calls` calls.

        Raises:
            TargetError: the device failed.
        """
        spent = ctypes.c_uint64()
        check(self._library.forerun_trial_run(self._pointer, kernel, rows, calls, ctypes.byref(spent)))
        return 1e-9 * spent.value / calls

    def close(self) -> None:
        """Give the device's memory back."""
        self._library.forerun_trial_release(self._pointer)
        self._pointer = ctypes.c_void_p()

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
