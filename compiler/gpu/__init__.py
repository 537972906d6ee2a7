"""Kernels for devices with many small threads: CUDA, WebGPU and OpenCL, from one source.

The operations, weights and rounding are those of the CPU's kernels; what differs is how work is shared out.
"""
