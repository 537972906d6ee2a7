"""From TIR kernels to one object file of plain C functions, with no TVM symbols left in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tvm
from tvm import tirx
from tvm.target import Target as TvmTarget

from forerun.compiler.tir import Kernel
from forerun.errors import CompileError
from forerun.targets import Target


def lower(functions: dict[str, tirx.PrimFunc], target: TvmTarget) -> tvm.IRModule:
    """Lower plain C kernels to what LLVM's code generator takes.

    TVM's default pipeline leaves functions of calling convention 1 alone in MakePackedAPI, which would
    otherwise also have added the device attributes that its last passes ask for: they are added here.
    """
    module = tirx.transform.BindTarget(target.with_host(target))(tvm.IRModule(functions))
    pipeline, finalize_host, _ = tirx.get_default_tir_pipeline(target)
    module = pipeline(module)
    with_device = {variable: _with_device(function) for variable, function in module.functions.items()}
    return finalize_host()(tvm.IRModule(with_device))


def _with_device(function: tirx.PrimFunc) -> tirx.PrimFunc:
    cpu, zero = tirx.IntImm("int32", 1), tirx.IntImm("int32", 0)
    body = tirx.AttrStmt("default", "device_type", cpu, function.body)
    return function.with_body(tirx.AttrStmt("default", "device_id", zero, body))


def write_object(kernels: Iterable[Kernel], target: Target, path: Path, prefix: str = "") -> None:
    """Compile kernels for a target into one relocatable object file at `path`; `prefix` goes before their names.

    Raises:
        CompileError: TVM or LLVM refuses a kernel, or the target is not in this build of LLVM.
    """
    functions = {
        prefix + kernel.name: kernel.function.with_attr("global_symbol", prefix + kernel.name)
        for kernel in kernels
    }
    try:
        tvm_target = TvmTarget(dict(target.llvm))
        code = tvm.get_global_func("target.build.llvm")(lower(functions, tvm_target), tvm_target)
        code.write_to_file(str(path))
    except Exception as error:  # TVM raises many kinds; all of them mean that this program cannot be built
        raise CompileError(f"TVM could not build the kernels for {target.name}: {error}") from error
