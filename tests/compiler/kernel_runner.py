"""Building kernels and calling them from Python."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from emulated_kernels import EMULATED, EmulatedKernels

from forerun.compiler.native import write_object
from forerun.compiler.tir import Kernel
from forerun.targets import ALL_TARGETS, Target
from forerun.targets.detect import cpu_features, why_not

RUNNABLE = [target for target in ALL_TARGETS if why_not(target, cpu_features(), platform.machine()) is None]
# Those that run here one way or the other.
TESTED = [*RUNNABLE, *(target for target in EMULATED if target not in RUNNABLE)]


class Kernels:
    """A library of kernels, callable by name with arrays and scalars."""

    def __init__(self, kernels: Sequence[Kernel], target: Target, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_object(kernels, target, folder / "kernels.o")
        library = folder / "kernels.so"
        command = ["cc", "-shared", "-o", str(library), str(folder / "kernels.o"), "-lm"]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))
        self._kernels = {kernel.name: kernel for kernel in kernels}

    def call(self, name: str, *arguments: np.ndarray | int, rows: int, threads: int = 1) -> None:
        """Run a kernel as `threads` threads would, one after the other."""
        types = {"int32": ctypes.c_int32, "int64": ctypes.c_int64}
        given = [
            ctypes.c_void_p(value.ctypes.data) if parameter.pointer else types[parameter.dtype](value)
            for value, parameter in zip(arguments, self._kernels[name].parameters, strict=True)
        ]
        for tid in range(threads):
            last = (ctypes.c_int32(rows), ctypes.c_int32(tid), ctypes.c_int32(threads))
            getattr(self._library, name)(*given, *last)


def build_kernels(kernels: Sequence[Kernel], target: Target, folder: Path) -> Kernels | EmulatedKernels:
    """Return the kernels as a library here, or as a program under an emulator."""
    return (Kernels if target in RUNNABLE else EmulatedKernels)(kernels, target, folder)


def aligned(shape: Sequence[int] | int, dtype: object) -> np.ndarray:
    """Return a zeroed array at an address that is a multiple of 64, as the core allocates."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def placed(array: np.ndarray) -> np.ndarray:
    """Return an aligned copy."""
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy
