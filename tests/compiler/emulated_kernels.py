"""Running kernels for a 64-bit Arm under qemu, each target on a processor that has no more than it asks for."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType

import numpy as np

from forerun.compiler.emit import kernel_declaration
from forerun.compiler.native import write_object
from forerun.compiler.tir import Kernel
from forerun.targets import TARGETS, Target

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
PROCESSORS: Mapping[str, str] = MappingProxyType(
    {"arm64": "cortex-a53", "arm64-dotprod": "cortex-a76", "arm64-i8mm": "max"}
)
MISSING = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
EMULATED = [] if MISSING else [TARGETS[name] for name in PROCESSORS]

_FILE = Template("""\
/* Runs one kernel: reads a call from a file, writes its arrays back. A call is int32 kernel, rows, threads,
 * parameters, then for each parameter int64 size and its bytes; size -1 precedes a scalar. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

$declarations

typedef void entry(void *const *p, const int64_t *s, int32_t rows, int32_t tid, int32_t threads);

$entries

static entry *const table[] = {$names};

static void get(void *to, size_t bytes, FILE *file) {
  if (bytes && fread(to, bytes, 1, file) != 1) exit(3);
}

int main(int count, char **arguments) {
  FILE *in = fopen(arguments[1], "rb"), *out;
  int32_t head[4];
  int64_t sizes[64], scalars[64];
  void *pointers[64];
  if (count != 3 || !in) return 2;
  get(head, sizeof head, in);
  for (int32_t i = 0; i < head[3]; ++i) {
    get(&sizes[i], 8, in);
    if (sizes[i] < 0) {
      get(&scalars[i], 8, in);
      continue;
    }
    pointers[i] = aligned_alloc(64, (size_t)(sizes[i] / 64 + 2) * 64);
    get(pointers[i], (size_t)sizes[i], in);
  }
  for (int32_t tid = 0; tid < head[2]; ++tid) table[head[0]](pointers, scalars, head[1], tid, head[2]);
  out = fopen(arguments[2], "wb");
  if (!out) return 2;
  for (int32_t i = 0; i < head[3]; ++i)
    if (sizes[i] > 0 && fwrite(pointers[i], (size_t)sizes[i], 1, out) != 1) return 3;
  return fclose(out) ? 3 : 0;
}
""")


def processor_command(name: str) -> list[str]:
    """Return what to write before a program to run it on a processor of qemu's."""
    return [EMULATOR, "-cpu", name, "-L", "/usr/aarch64-linux-gnu"]


class EmulatedKernels:
    """A program of kernels for a 64-bit Arm, callable by name with arrays and scalars."""

    def __init__(self, kernels: Sequence[Kernel], target: Target, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_object(kernels, target, folder / "kernels.o")
        source, self._program = folder / "calls.c", folder / "calls"
        source.write_text(_source(kernels), encoding="utf-8")
        flags = ["-std=c11", "-O1", "-static", "-Wall", "-Werror"]
        objects = [str(source), str(folder / "kernels.o")]
        subprocess.run([COMPILER, *flags, *objects, "-o", str(self._program), "-lm"], check=True)
        self._places = {kernel.name: place for place, kernel in enumerate(kernels)}
        self._command = [*processor_command(PROCESSORS[target.name]), str(self._program)]

    def call(self, name: str, *arguments: np.ndarray | int, rows: int, threads: int = 1) -> None:
        """Run a kernel as `threads` threads would, one after the other; arrays change in place."""
        call, result = self._program.with_name("call"), self._program.with_name("result")
        with call.open("wb") as file:
            file.write(struct.pack("<4i", self._places[name], rows, threads, len(arguments)))
            for value in arguments:
                scalar = not isinstance(value, np.ndarray)
                file.write(struct.pack("<2q", -1, value) if scalar else struct.pack("<q", value.nbytes))
                file.write(b"" if scalar else np.ascontiguousarray(value).tobytes())
        subprocess.run([*self._command, str(call), str(result)], check=True)
        data, place = result.read_bytes(), 0
        for value in arguments:
            if isinstance(value, np.ndarray):
                flat = np.frombuffer(data, value.dtype, value.size, place)
                value[...] = flat.reshape(value.shape)
                place += value.nbytes


def _source(kernels: Sequence[Kernel]) -> str:
    entries = []
    for kernel in kernels:
        given = [
            f"p[{place}]" if parameter.pointer else f"({parameter.dtype}_t)s[{place}]"
            for place, parameter in enumerate(kernel.parameters)
        ]
        # The underscores keep these names out of the way of kernels, one of which is called `rows`.
        call = f"{kernel.name}({', '.join([*given, 'rows_', 'tid_', 'threads_'])});"
        entries.append(
            f"static void run_{kernel.name}(void *const *p, const int64_t *s, int32_t rows_, int32_t tid_, "
            f"int32_t threads_) {{ (void)s; {call} }}"
        )
    return _FILE.substitute(
        declarations="\n".join(kernel_declaration(kernel) for kernel in kernels),
        entries="\n".join(entries),
        names=", ".join(f"run_{kernel.name}" for kernel in kernels),
    )
