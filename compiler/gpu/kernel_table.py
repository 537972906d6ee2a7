"""The C text of a device's kernels: their sources or their binary, and the list of them (see device.h)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forerun.compiler.emit import wrapped
from forerun.compiler.gpu.build import CompiledKernels, DeviceSource, device_sources, entry_name
from forerun.compiler.gpu.writer import GpuKernel
from forerun.targets.gpu import GpuTarget


@dataclass(frozen=True)
class KernelTable:
    """Kernels as C: `text` defines `kernel_list`, in their order, and what it names; `binary` is their cubin's array.

    `binary` is 0 where the device's driver compiles sources.
    """

    text: str
    binary: str

    @classmethod
    def of(cls, kernels: Iterable[GpuKernel], target: GpuTarget) -> KernelTable:
        """Build the kernels and write them down.

        Raises:
            CompileError: TVM refuses a kernel, or nvcc, or a kernel does not fit into its registers.
        """
        listed = list(kernels)
        sources = device_sources(listed, target)
        compiled = CompiledKernels.of(sources, target)
        texts = [_source_text(name, source) for name, source in sources.items() if not compiled.binary]
        entries = [_kernel_entry(kernel, sources[kernel.name], compiled) for kernel in listed]
        head = compiled.binary + "\n".join(texts)
        lines = [head, "static const forerun_device_kernel kernel_list[] = {", *entries, "};\n"]
        return cls("\n".join(lines), "binary" if compiled.binary else "0")


def _source_text(name: str, source: DeviceSource) -> str:
    escaped = source.text.replace("\\", "\\\\").replace('"', '\\"').splitlines()
    lines = "\n".join(f'    "{line}\\n"' for line in escaped)
    return f"static const char {name}_source[] =\n{lines};\n"


def _kernel_entry(kernel: GpuKernel, source: DeviceSource, compiled: CompiledKernels) -> str:
    names = [*(p.name for p in kernel.parameters), "rows"]
    taken = ", ".join(str(names.index(name)) for name in source.arguments)
    images = sum(1 << i for i, name in enumerate(source.arguments) if name in kernel.images)
    grid = kernel.grid
    counted = isinstance(grid.columns, str)
    columns = f"0, {given_kind(str(grid.columns))}" if counted else f"{grid.columns}, 0"
    text = "0" if compiled.binary else f"{kernel.name}_source"
    entry = f'{{"{entry_name(kernel)}", {text}, {kernel.threads}, {columns}, {grid.each}, {grid.rows}, '
    lines = wrapped(f"{entry}{len(source.arguments)}, (const uint8_t[]){{{taken}}}, {images}}},", "    ")
    return "\n".join(lines) + compiled.note(entry_name(kernel))


def given_kind(name: str) -> str:
    """Return the C name of a kind of what kernels are given."""
    return f"FORERUN_GIVEN_{name.upper()}"
