"""ONNX Runtime: the one target that is no hardware and has no kernels of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """A program that runs ONNX files as they are.

    Attributes:
        name: what users write after `--target`.
        summary: one line for `forerun list`.
        package: the Python package that it takes.
        extra: the extra of forerun's that installs it.
    """

    name: str
    summary: str
    package: str
    extra: str


ONNXRUNTIME = Engine(
    name="onnxruntime",
    summary="ONNX Runtime on the CPU, or CUDA with onnxruntime-gpu (never run): ONNX files as they are,"
    " also those that optimum exported",
    package="onnxruntime",
    extra="onnxruntime",
)
