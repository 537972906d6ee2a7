"""Running kernels of devices on this machine's processor: OpenCL by PoCL, WebGPU by wgpu-native on Mesa's lavapipe,
CUDA by a driver that the tests emulate.

`apt install pocl-opencl-icd mesa-vulkan-drivers`; tests of a device that is not there are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from cuda_runner import CudaKernel, cuda_driver

from forerun.compiler.gpu.build import DeviceSource, device_sources, entry_name
from forerun.compiler.gpu.writer import GpuKernel
from forerun.targets.cuda import SM_90
from forerun.targets.gpu import GpuTarget
from forerun.targets.opencl import ADRENO, OPENCL
from forerun.targets.webgpu import WEB, WEBGPU

DEVICES = (OPENCL, WEBGPU, SM_90)
IMAGES = replace(OPENCL, name="opencl-images", computes=ADRENO.computes)
LAYOUTS = (*DEVICES, WEB, IMAGES)  # which read weights of either layout, or as images

Given = Mapping[str, np.ndarray | int]


@cache
def opencl_context() -> Any:
    """Return a context of PoCL's device, or of a processor's where another OpenCL is there alone."""
    pyopencl = pytest.importorskip("pyopencl")
    try:
        platforms = pyopencl.get_platforms()
    except pyopencl.LogicError:  # there is no loader, or it finds no platform
        platforms = []
    for platform in sorted(platforms, key=lambda platform: "Portable" not in platform.name):
        for device in platform.get_devices(pyopencl.device_type.CPU):
            return pyopencl.Context([device])
    pytest.skip("needs PoCL (apt install pocl-opencl-icd)")


@cache
def webgpu_device() -> Any:
    """Return lavapipe's device with the limits that every WebGPU device has."""
    wgpu = pytest.importorskip("wgpu")
    for adapter in wgpu.gpu.enumerate_adapters_sync():
        if adapter.info["adapter_type"] == "CPU" and adapter.info["backend_type"] == "Vulkan":
            return adapter.request_device_sync()
    pytest.skip("needs lavapipe (apt install mesa-vulkan-drivers)")


class _OpenCl:
    """One kernel, compiled by the device's own compiler."""

    def __init__(self, kernel: GpuKernel, source: DeviceSource) -> None:
        import pyopencl

        self._cl, self._kernel, self._source = pyopencl, kernel, source
        self._queue = pyopencl.CommandQueue(opencl_context())
        version = opencl_context().devices[0].version  # "OpenCL 3.0 …"; the core builds with the same option
        options = ["-cl-std=CL3.0"] if int(version.split()[1].split(".")[0]) >= 3 else []
        program = pyopencl.Program(opencl_context(), source.text).build(options)
        self._entry = pyopencl.Kernel(program, entry_name(kernel))

    def __call__(self, given: Given, groups: tuple[int, int]) -> None:
        flags = self._cl.mem_flags
        taken = {
            name: self._cl.Buffer(
                opencl_context(), flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=given[name]
            )
            if isinstance(given[name], np.ndarray)
            else np.int32(given[name])
            for name in self._source.arguments
        }
        images = [self._image(taken[name]) if name in self._kernel.images else taken[name] for name in taken]
        self._entry.set_args(*images)
        size = (groups[0] * self._kernel.threads, groups[1])
        self._cl.enqueue_nd_range_kernel(self._queue, self._entry, size, (self._kernel.threads, 1))
        for parameter in self._kernel.parameters:
            if parameter.written:
                self._cl.enqueue_copy(self._queue, given[parameter.name], taken[parameter.name])
        self._queue.finish()

    def _image(self, buffer: Any) -> Any:
        """Return memory as an image of its words."""
        cl = self._cl
        shape = cl.ImageDescriptor()
        shape.image_type, shape.shape = cl.mem_object_type.IMAGE1D_BUFFER, (buffer.size // 4,)
        shape.buffer = buffer
        words = cl.ImageFormat(cl.channel_order.R, cl.channel_type.UNSIGNED_INT32)
        return cl.Image(opencl_context(), cl.mem_flags.READ_ONLY, words, desc=shape)


class _WebGpu:
    """One kernel as a pipeline: bindings are its arrays, then a uniform of its scalars and the last column."""

    def __init__(self, kernel: GpuKernel, source: DeviceSource) -> None:
        self._device, self._kernel, self._source = webgpu_device(), kernel, source
        module = self._device.create_shader_module(code=source.text)
        compute = {"module": module, "entry_point": entry_name(kernel)}
        self._pipeline = self._device.create_compute_pipeline(layout="auto", compute=compute)

    def __call__(self, given: Given, groups: tuple[int, int]) -> None:
        import wgpu

        usage = wgpu.BufferUsage
        arrays = {name: given[name] for name in self._source.arguments if isinstance(given[name], np.ndarray)}
        buffers = {
            name: self._device.create_buffer_with_data(
                data=np.ascontiguousarray(array).view(np.uint8),
                usage=usage.STORAGE | usage.COPY_SRC,
            )
            for name, array in arrays.items()
        }
        scalars = [int(given[name]) for name in self._source.arguments if name not in arrays]
        numbers = np.zeros(-(-(len(scalars) + 1) // 4) * 4, np.int32)
        numbers[: len(scalars) + 1] = [*scalars, groups[0] - 1]
        uniform = self._device.create_buffer_with_data(data=numbers, usage=usage.UNIFORM)
        bound = [*buffers.values(), uniform]
        group = self._device.create_bind_group(
            layout=self._pipeline.get_bind_group_layout(0),
            entries=[{"binding": i, "resource": {"buffer": one}} for i, one in enumerate(bound)],
        )
        encoder = self._device.create_command_encoder()
        run = encoder.begin_compute_pass()
        run.set_pipeline(self._pipeline)
        run.set_bind_group(0, group)
        run.dispatch_workgroups(*groups, 1)
        run.end()
        self._device.queue.submit([encoder.finish()])
        for parameter in self._kernel.parameters:
            if parameter.written:
                array = arrays[parameter.name]
                read = np.frombuffer(self._device.queue.read_buffer(buffers[parameter.name]), array.dtype)
                array[...] = read.reshape(array.shape)


class DeviceKernels:
    """Kernels compiled for a device, callable by name with arrays and scalars."""

    def __init__(self, target: GpuTarget, kernels: Sequence[GpuKernel]) -> None:
        run = {"opencl": _OpenCl, "webgpu": _WebGpu, "cuda": CudaKernel}[target.device]
        {"opencl": opencl_context, "webgpu": webgpu_device, "cuda": cuda_driver}[target.device]()
        self.kernels = {kernel.name: kernel for kernel in kernels}
        sources = device_sources(kernels, target)
        self._run = {name: run(kernel, sources[name]) for name, kernel in self.kernels.items()}

    def call(self, name: str, *arguments: np.ndarray | int, rows: int) -> None:
        """Run a kernel; arrays that it writes are read back."""
        kernel = self.kernels[name]
        given = dict(zip((p.name for p in kernel.parameters), arguments, strict=True))
        self._run[name]({**given, "rows": rows}, kernel.grid.size(rows, given))
