"""From kernels to what a device loads: OpenCL C or WGSL as text, or CUDA's cubin."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx
from tvm.target import Target as TvmTarget

from forerun.compiler.gpu.heads import HEADS
from forerun.compiler.gpu.writer import GpuKernel
from forerun.errors import CompileError
from forerun.targets.gpu import GpuTarget

# Not TVM's default pipeline, which puts the value of every name into its uses: of kernels as long as these it makes
# sources of a hundred times the length. What it schedules (blocks, barriers) is written out in them already.
_PASSES = (
    tirx.transform.FlattenBuffer(),
    tirx.transform.CommonSubexprElim(),
    tirx.transform.AnnotateEntryFunc(),
    tirx.transform.SplitHostDevice(),
)
# A float32 constant in TVM's script, and in the source of a kernel.
_CONSTANT = re.compile(r"T\.float32\(([-+.e\d]+)\)")
_DECIMAL = re.compile(r"\b(\d\.\d{6}e[+-]\d+)f")
_DEVICE_KERNEL_LAUNCH = 2  # TVM's calling convention of kernels

_NVCC_FLAGS = ("-fmad=false", "-O3", "-Xptxas", "-v", "-cubin")
# Threads that CUDA's assembler has to leave registers for, 80 each. Where it may choose how many run side by side, it
# spills a few for more.
_CUDA_THREADS = 768


@dataclass(frozen=True)
class Resources:
    """What CUDA's assembler says of a kernel: registers a thread, bytes of them spilled, shared memory in bytes."""

    registers: int
    spilled_bytes: int
    shared_bytes: int


def entry_name(kernel: GpuKernel) -> str:
    """Return the name of a kernel's function in its source."""
    return f"{kernel.name}_kernel"


@dataclass(frozen=True)
class DeviceSource:
    """A kernel in the device's language; `arguments` are those of its parameters that it takes, in its order.

    What a kernel does not use is no argument of its function.
    """

    text: str
    arguments: tuple[str, ...]


def device_sources(kernels: Iterable[GpuKernel], target: GpuTarget) -> dict[str, DeviceSource]:
    """Return the source of each kernel by name.

    Raises:
        CompileError: TVM refuses a kernel.
    """
    return {kernel.name: _source(kernel, target) for kernel in kernels}


def _source(kernel: GpuKernel, target: GpuTarget) -> DeviceSource:
    try:
        tvm_target = TvmTarget(dict(target.llvm), host={"kind": "llvm"})
        module = tirx.transform.BindTarget(tvm_target)(tvm.IRModule({kernel.name: kernel.function}))
        function = _device_part(tvm.ir.transform.Sequential(_PASSES)(module))
        build = tvm.get_global_func(f"target.build.{tvm_target.kind.name}")
        lowered = tirx.transform.LowerIntrin()(tvm.IRModule({entry_name(kernel): function}))
        text = str(build(lowered, tvm_target).inspect_source())
    except Exception as error:  # TVM raises many kinds; all of them mean that this kernel cannot be built
        raise CompileError(f"TVM could not build {kernel.name} for {target.name}: {error}") from error
    if target.device == "cuda":
        bounds = f"__launch_bounds__({kernel.threads}"
        text = text.replace(f"{bounds})", f"{bounds}, {max(_CUDA_THREADS // kernel.threads, 1)})")
    else:
        text = _with_images(_with_all_digits(text, kernel), kernel)
    arguments = tuple(variable.name.removesuffix("_ptr") for variable in function.params)
    return DeviceSource(HEADS.get(target.device, "") + text, arguments)


def _with_all_digits(text: str, kernel: GpuKernel) -> str:
    """Write float32 constants with 9 digits, which tell them apart: TVM writes 7, in hexadecimals for CUDA alone."""
    constants: dict[str, np.float32] = {}
    for number in _CONSTANT.findall(kernel.function.script()):
        written, value = f"{abs(float(number)):.6e}", np.float32(abs(float(number)))
        if constants.setdefault(written, value) != value:
            raise CompileError(f"{kernel.name} has two constants that TVM writes as {written}")
    return _DECIMAL.sub(lambda found: f"{constants[found[1]]:.8e}f", text)


def _with_images(text: str, kernel: GpuKernel) -> str:
    """Make images of the arrays that a kernel reads as such: TVM has none that lie in a row."""
    for name in kernel.images:
        text, count = re.subn(
            rf"__global uint\* restrict {name}_ptr\b", f"__read_only image1d_buffer_t {name}_ptr", text
        )
        if not count:
            raise CompileError(f"{kernel.name} has no {name} that could be an image")
    return text


def _device_part(module: tvm.IRModule) -> tirx.PrimFunc:
    """Return the function that runs on the device, of those that a kernel was split into."""
    (function,) = (
        function
        for function in module.functions.values()
        if function.attrs.get("calling_conv") == _DEVICE_KERNEL_LAUNCH
    )
    return function


def build_cubin(sources: Iterable[DeviceSource], target: GpuTarget, path: Path) -> dict[str, Resources]:
    """Compile CUDA sources to one cubin at `path`; return what each kernel uses of the device.

    Raises:
        CompileError: there is no nvcc, or it refuses a source, or a kernel does not fit into its registers.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise CompileError(
            f"{target.name}: nvcc is not there; install the CUDA toolkit, or put nvcc on the path"
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernels.cu"
        source.write_text(_joined([source.text for source in sources]), encoding="utf-8")
        built = source.with_suffix(".cubin")
        command = [nvcc, *_NVCC_FLAGS, f"-arch={target.llvm['arch']}", "-o", str(built), str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise CompileError(f"nvcc refused the kernels for {target.name}:\n{result.stderr.strip()}")
        found = read_resources(result.stderr)
        _check_spills(found, target)
        shutil.copyfile(built, path)
    return found


def _check_spills(found: Mapping[str, Resources], target: GpuTarget) -> None:
    for name, resources in found.items():
        if resources.spilled_bytes:
            raise CompileError(
                f"{name} spills {resources.spilled_bytes} bytes of registers on {target.name}; it needs smaller tiles"
            )


def _joined(sources: Sequence[str]) -> str:
    """Return the sources as one, with what TVM puts before each of them once."""
    bodies = [source[source.index('extern "C"') :] for source in sources]
    head = sources[0][: sources[0].index('extern "C"')]
    # The driver's header is for tensor maps, which no kernel has.
    return "\n".join([head.replace("#include <cuda.h>", ""), *bodies])


def read_resources(text: str) -> dict[str, Resources]:
    """Return what nvcc's assembler has reported of each kernel."""
    found = {}
    for part in text.split("Compiling entry function ")[1:]:
        name = re.match(r"'(\w+)'", part)
        spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", part)
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        if name is None or registers is None:
            raise CompileError(f"nvcc's report of registers reads otherwise than expected:\n{part.strip()}")
        found[name.group(1)] = Resources(
            int(registers.group(1)), sum(map(int, spilled)), int(shared.group(1)) if shared else 0
        )
    return found


@dataclass(frozen=True)
class CompiledKernels:
    """What was compiled here of a program's kernels: all of them as a C array, and what each uses of the device.

    Both are empty where the device's driver compiles sources.
    """

    binary: str
    resources: Mapping[str, Resources]

    @classmethod
    def of(cls, sources: Mapping[str, DeviceSource], target: GpuTarget) -> CompiledKernels:
        """Compile what has to be."""
        if target.device != "cuda":
            return cls("", {})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernels.cubin"
            resources = build_cubin(sources.values(), target, path)
            data = path.read_bytes()
        lines = (", ".join(map(str, data[i : i + 32])) for i in range(0, len(data), 32))
        return cls("static const uint8_t binary[] = {\n" + ",\n".join(lines) + "};\n\n", resources)

    def note(self, name: str) -> str:
        """Return a comment on a kernel's resources."""
        if name not in self.resources:
            return ""
        used = self.resources[name]
        return f" /* {used.registers} registers, {used.spilled_bytes} bytes spilled, {used.shared_bytes} shared */"
