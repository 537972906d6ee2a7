"""One kernel on CUDA: the GPU of this machine, or the driver that the tests emulate."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from cuda_emulation import build_emulation

from forerun.compiler.gpu.build import DeviceSource, build_cubin, entry_name
from forerun.compiler.gpu.writer import GpuKernel
from forerun.targets.cuda import SM_90


class _Driver:
    """The driver with a stream, and the environment in which nvcc makes what it loads."""

    def __init__(self, library: ctypes.CDLL, environment: Mapping[str, str]) -> None:
        self.library, self.environment = library, environment
        context, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(self.stream), 0)

    def call(self, name: str, *arguments: object) -> None:
        """Call one of the driver's functions, which has to succeed."""
        code = self.library[name](*arguments)
        assert code == 0, f"{name} gives {code}"


@cache
def cuda_driver() -> _Driver:
    """Return the machine's own driver where it has a GPU, else the emulated one; skip the test without nvcc."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc (the CUDA toolkit)")
    try:
        library = ctypes.CDLL("libcuda.so.1")
        if library.cuInit(0) == 0:
            return _Driver(library, {})
    except OSError:  # there is no driver
        pass
    folder = Path(tempfile.mkdtemp(prefix="emulated-cuda-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = build_emulation(folder)
    return _Driver(ctypes.CDLL(str(folder / "libcuda.so.1")), environment)


class CudaKernel:
    """A kernel as a module of its own."""

    def __init__(self, kernel: GpuKernel, source: DeviceSource) -> None:
        self._kernel, self._source, self._driver = kernel, source, cuda_driver()
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernel.cubin"
            with patch.dict(os.environ, self._driver.environment):
                build_cubin([source], SM_90, path)
            self._driver.call("cuModuleLoadData", ctypes.byref(module), path.read_bytes())
        name = entry_name(kernel).encode()
        self._driver.call("cuModuleGetFunction", ctypes.byref(self._function), module, name)

    def __call__(self, given: Mapping[str, np.ndarray | int], groups: tuple[int, int]) -> None:
        call, stream = self._driver.call, self._driver.stream
        values, arrays = [], {}
        for name in self._source.arguments:
            value = given[name]
            if isinstance(value, np.ndarray):
                arrays[name] = ctypes.c_uint64()
                call("cuMemAlloc_v2", ctypes.byref(arrays[name]), ctypes.c_size_t(value.nbytes))
                size = ctypes.c_size_t(value.nbytes)
                call(
                    "cuMemcpyHtoDAsync_v2", arrays[name], value.ctypes.data_as(ctypes.c_void_p), size, stream
                )
            values.append(arrays.get(name) or ctypes.c_int32(int(value)))
        self._launch(values, groups)
        for parameter in self._kernel.parameters:
            if parameter.written:
                array = given[parameter.name]
                pointer, size = array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes)
                call("cuMemcpyDtoHAsync_v2", pointer, arrays[parameter.name], size, stream)
        call("cuStreamSynchronize", stream)
        for address in arrays.values():
            call("cuMemFree_v2", address)

    def _launch(self, values: Sequence[ctypes._SimpleCData], groups: tuple[int, int]) -> None:
        addresses = [ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values]
        given = (ctypes.c_void_p * len(values))(*addresses)
        sizes = [*groups, 1, self._kernel.threads, 1, 1, 0]
        self._driver.call("cuLaunchKernel", self._function, *sizes, self._driver.stream, given, None)
