"""From an export directory to a bundle for one target."""

from __future__ import annotations

if not __name__.startswith("forerun."):
    raise ImportError("import forerun.compiler, not the bare folder: run from an installed forerun")

from forerun.compiler.pipeline import KV_DTYPES, CompileReport, compile_export

__all__ = ["KV_DTYPES", "CompileReport", "compile_export"]
